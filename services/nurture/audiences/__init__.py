"""Retargeting lists: who is in a segment and allows it, told to an address as hashes."""
