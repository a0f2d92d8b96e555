"""Sites: what the tracking snippet on a page sees, taken without a token."""
