"""What sequences ask of routing: a rep for a lead, a word to a rep, a webhook. Each is done once, by the fact's id."""
