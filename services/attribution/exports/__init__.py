"""Exports for data teams: journeys, conversions and credits as Parquet or NDJSON."""
