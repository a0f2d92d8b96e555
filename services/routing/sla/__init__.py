"""The time reps have: clocks that run for an assignment, what happens when they are over, and how fast reps are."""
