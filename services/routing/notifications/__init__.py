"""What reps are told, by which channel, each once; and what they answer in Slack."""
