"""The sender's side of a signature."""

from collections.abc import Callable
from datetime import datetime

Signer = Callable[[bytes, str, str, datetime], dict[str, str]]
"""The headers, in lower case, for a body, with a secret, to an address, at a time."""
