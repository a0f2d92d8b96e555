"""The consent ledger: what people allow, by channel and purpose, since when, and how that can be proven."""
