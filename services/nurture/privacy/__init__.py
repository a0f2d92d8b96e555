"""A person's rights: what nurture erases of them, and what it holds about them."""
