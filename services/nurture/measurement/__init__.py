"""What messages came to: delivery, opens, clicks, replies, conversions and money, by sequence, step and variant."""
