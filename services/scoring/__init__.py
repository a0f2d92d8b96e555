"""Scoring: how interested a lead is, how well it fits, and how far it has come."""
