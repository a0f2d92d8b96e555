"""Imports: files of leads, touches, conversions and costs, row by row what the API does with each."""
