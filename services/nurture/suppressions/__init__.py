"""The suppression list: whom nothing is sent to, whatever a sequence or a consent says."""
