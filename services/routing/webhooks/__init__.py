"""Signed webhooks to other systems: endpoints, what waits to be delivered to them, and what became of each try.

What is delivered is for others to say: `handlers.enqueue` takes bytes and the endpoint they are for.
"""
