"""When reps can be given leads, and why not."""
