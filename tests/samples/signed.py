"""The signed webhook samples beside this file as requests, and the senders' side of every signature."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from services.capture.adapters.adapter import Headers, HookRequest, MappingSettings

FOLDER = Path(__file__).parent / "webhooks"
KINDS = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Sample:
    """A request that was signed long ago, the clock to verify it with, and the facts that it tells."""

    kind: str
    secret: str
    now: datetime
    request: HookRequest
    settings: MappingSettings
    expected: Mapping[str, Any]
    verdict: str
    status: int

    def with_body(self, body: bytes, now: datetime | None = None) -> HookRequest:
        """The same sender with another body, or at another time, signed for it."""
        headers = sign(self.kind, body, self.secret, now or self.now)
        kept = [(name, value) for name, value in self.request.headers.pairs if name not in headers]
        return replace(self.request, raw_body=body, headers=Headers((*kept, *headers.items())))

    def with_headers(self, **changed: str | None) -> HookRequest:
        """The same request with these headers in place of its own; None takes one away."""
        names = {name.replace("_", "-"): value for name, value in changed.items()}
        kept = [(name, value) for name, value in self.request.headers.pairs if name not in names]
        given = [(name, value) for name, value in names.items() if value is not None]
        return replace(self.request, headers=Headers((*kept, *given)))


def sample(kind: str) -> Sample:
    """The sample of this kind."""
    told = json.loads((FOLDER / f"{kind}.json").read_text())
    now = datetime.fromisoformat(told["now"])
    return Sample(
        kind=kind,
        secret=told["secret"],
        now=now,
        request=HookRequest(
            method=told["method"],
            url=told["url"],
            headers=Headers.of(told["headers"]),
            raw_body=told["body"].encode(),
            received_at=now,
        ),
        settings=MappingSettings.of(told.get("mapping", {}), told.get("defaults", {})),
        expected=told["expected"],
        verdict=told["verdict"],
        status=told["status"],
    )


def sign(kind: str, body: bytes, secret: str, now: datetime, message_id: str = "msg_0cf93deb") -> dict[str, str]:
    """The headers, in lower case, that a sender of this kind signs a body with."""
    seconds = str(int(now.timestamp()))
    match kind:
        case "typeform":
            return {"typeform-signature": "sha256=" + _base64_mac(secret.encode(), body)}
        case "shopify":
            return {"x-shopify-hmac-sha256": _base64_mac(secret.encode(), body)}
        case "stripe":
            mac = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
            return {"stripe-signature": f"t={seconds},v1={mac}"}
        case "standard_webhooks" | "generic":
            key = base64.b64decode(secret.removeprefix("whsec_"))
            mac = _base64_mac(key, f"{message_id}.{seconds}.".encode() + body)
            return {"webhook-id": message_id, "webhook-timestamp": seconds, "webhook-signature": f"v1,{mac}"}
        case _:
            raise ValueError(f"nobody has said how {kind} signs")


def _base64_mac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
