"""Experiments: who gets which variant, what that came to, and which one is better beyond doubt."""
