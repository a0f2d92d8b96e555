"""Ways to a person, behind one interface."""
