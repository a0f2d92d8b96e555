"""Leads that are offered to all members of a queue at once: the first to claim one has it."""
