"""Where people meet a form: its page, what they send, its script for other pages, the link that confirms."""
