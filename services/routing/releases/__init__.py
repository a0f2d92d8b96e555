"""Leads that wait, and how a person lets them go on."""
