"""Facts that need no decision: touches, conversions, refunds, costs."""
