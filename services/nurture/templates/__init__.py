"""Templates: what they may contain, and filling them where nothing can be harmed."""
