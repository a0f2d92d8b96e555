"""What the checks of broadcasts read and write."""
