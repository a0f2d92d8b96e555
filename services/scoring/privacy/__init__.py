"""A person's rights: what scoring erases of them, and what it holds about them."""
