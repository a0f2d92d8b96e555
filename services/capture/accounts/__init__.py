"""Companies, and which leads are theirs."""
