"""Webhooks by Zapier: a custom request. https://help.zapier.com/hc/en-us/articles/8496326446989"""

from typing import ClassVar

from services.capture.adapters.automation import Automation


class Zapier(Automation):
    """A step of a Zap."""

    kind: ClassVar[str] = "zapier"


ADAPTER = Zapier()
