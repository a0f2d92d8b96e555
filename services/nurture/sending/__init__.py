"""Messages: the ledger, the provider, and what became of each."""
