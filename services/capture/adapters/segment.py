"""Segment: its webhook destination, and bodies of its tracking API. https://segment.com/docs/connections/spec/

`X-Signature` is over one event. Of a delivery of several it covers nothing that we can tell, so that these need the
secret in `Authorization`: as the bearer's token, or as the write key of the API, which is the user of Basic.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from services.capture.adapters.adapter import PLAIN, Adapter, BadSignature, HookRequest, MappingSettings, Reading
from services.capture.adapters.carried import carried_secrets
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.request import strip_secrets
from services.capture.adapters.signatures import header_bytes, keys, require_any
from services.capture.adapters.tracking_calls import calls_name, read_calls, unpacked


class Segment(Adapter):
    """Each call has a `messageId` of its own."""

    kind: ClassVar[str] = "segment"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        signatures = [header_bytes(value) for value in request.headers.all("x-signature")]
        expected = (hmac.new(key, request.raw_body, hashlib.sha1).hexdigest().encode() for key in keys(secrets))
        try:
            require_any(expected, signatures)
        except BadSignature:
            require_any(keys(secrets), carried_secrets(request))

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: calls_name(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        return read_calls(self.kind, request, settings)

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        return strip_secrets(unpacked(request), secrets)


ADAPTER = Segment()
