"""What nurture knows of people: profile, consent, stage, and what happened to them."""
