"""Capture: every lead, touch, conversion and cost comes in here, and who is who is decided here."""
