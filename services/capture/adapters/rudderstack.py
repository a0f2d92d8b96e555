"""RudderStack: its webhook destination. https://www.rudderstack.com/docs/destinations/webhooks/

RudderStack signs nothing: our secret is in a header that the destination's settings add.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from services.capture.adapters.adapter import PLAIN, Adapter, HookRequest, MappingSettings, Reading
from services.capture.adapters.carried import carried_secrets
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.request import strip_secrets
from services.capture.adapters.signatures import keys, require_any
from services.capture.adapters.tracking_calls import calls_name, read_calls, unpacked


class RudderStack(Adapter):
    """The events are Segment's."""

    kind: ClassVar[str] = "rudderstack"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_any(keys(secrets), carried_secrets(request))

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: calls_name(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        return read_calls(self.kind, request, settings)

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        return strip_secrets(unpacked(request), secrets)


ADAPTER = RudderStack()
