"""Who may be whom: suggested, never decided."""
