"""Exports: what is known, as files that spreadsheets can do no harm with, and that can be imported again."""
