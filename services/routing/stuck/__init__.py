"""Leads that do not move: why, since when, and the one call that moves each."""
