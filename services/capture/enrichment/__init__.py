"""Enrichment: what follows from what is told, and what providers say about it; each value with who said so."""
