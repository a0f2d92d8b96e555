"""The one message that asks somebody to confirm consent: through the ledger, exactly once, and without tracking."""
