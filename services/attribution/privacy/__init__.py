"""A person's rights: what attribution erases of them, and what it holds about them."""
