"""The page on which a person says what they want to get, without signing in."""
