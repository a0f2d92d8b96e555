"""Leads: who is who, what is known and allowed, merging, forgetting."""
