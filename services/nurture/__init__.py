"""Nurture: sequences of messages to people, each step at most once and only while it is allowed."""
