"""Make: its HTTP module. https://apps.make.com/http"""

from typing import ClassVar

from services.capture.adapters.automation import Automation


class Make(Automation):
    """A module of a scenario."""

    kind: ClassVar[str] = "make"


ADAPTER = Make()
