"""What persons, or their attempts to reach a lead, decided about its stage, against the rules."""
