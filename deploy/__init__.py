"""What runs Throughline: the embedded stack, and what the containers need beside their image."""
