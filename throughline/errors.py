"""What a command says instead of doing its work, and the statuses it ends with."""

from typing import ClassVar

FAILED = 1
FOUND = 2
"""A threshold was passed, or a difference found."""
REFUSED = 3
"""It would destroy something, and was not told to go ahead."""
USAGE = 64
BAD_SETTINGS = 78


class CommandFailed(Exception):
    """The command cannot do its work; the message is a sentence for the person who typed it."""

    status: ClassVar[int] = FAILED


class BadSettings(CommandFailed):
    """A setting is missing or means nothing."""

    status = BAD_SETTINGS


class NotDone(CommandFailed):
    """It destroys something, and needs to be told so."""

    status = REFUSED
