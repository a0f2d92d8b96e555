"""Clay: an HTTP API column, a request a row. https://www.clay.com/university"""

from typing import ClassVar

from services.capture.adapters.automation import Automation


class Clay(Automation):
    """A row of a table."""

    kind: ClassVar[str] = "clay"


ADAPTER = Clay()
