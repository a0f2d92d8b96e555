"""Forms: defined as data in versions, what was sent with them, and consent that waits for a link to be followed."""
