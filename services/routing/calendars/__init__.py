"""Reps' own calendars, fetched or uploaded."""
