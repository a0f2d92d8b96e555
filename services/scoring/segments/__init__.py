"""Segments: lists and conditions, whose members are known at every moment and told as they enter and leave."""
