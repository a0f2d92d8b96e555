"""A person's rights: what routing erases of them, and what it holds about them."""
