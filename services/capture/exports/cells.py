"""Cells that a spreadsheet takes for text, and back.

A cell that begins like a formula is led in by an apostrophe (OWASP, CSV injection), and so is one that begins with such
a lead-in already: so taking one apostrophe away gives back what stood there.
"""

import re

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_GUARDED = re.compile("'+[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def guarded(cell: str) -> str:
    """The cell as it may stand in a file that people open."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The cell as it was."""
    return cell[1:] if _GUARDED.match(cell) else cell


def harmless(cell: str) -> str:
    """A cell that somebody else wrote, guarded unless they did that."""
    return cell if _GUARDED.match(cell) else guarded(cell)
