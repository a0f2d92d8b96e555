"""Opens, clicks and unsubscriptions that come back from messages."""
