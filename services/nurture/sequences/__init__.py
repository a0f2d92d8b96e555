"""Sequences: documents that say who is written to, when and what."""
