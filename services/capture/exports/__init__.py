"""Exports of a person: all that every service holds about somebody who asks."""
