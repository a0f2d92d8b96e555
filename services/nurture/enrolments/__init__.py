"""Runs: who is in which sequence, how they came in and how they leave."""
