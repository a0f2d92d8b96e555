"""Reps who leave, and what becomes of their leads."""
