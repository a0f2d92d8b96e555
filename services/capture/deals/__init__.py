"""Deals of CRMs that come without a contact: whose they are, and those of which nobody knows."""
