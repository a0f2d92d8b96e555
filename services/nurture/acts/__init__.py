"""Steps that act on something else than the person's inbox: each in a ledger, once per run, step and visit."""
