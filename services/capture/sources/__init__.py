"""Webhook sources: what they are, their secrets, and what became of their deliveries."""
