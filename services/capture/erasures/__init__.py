"""Receipts of erasures: what every service erased of a person, and what it kept and why."""
