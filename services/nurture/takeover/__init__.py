"""A human takes over: what pauses marketing to a person, and when it resumes."""
