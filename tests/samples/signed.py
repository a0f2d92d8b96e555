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
from services.capture.hooks.checking import RecordedRequest, recorded
from tests.samples import senders_ads, senders_events, senders_forms, senders_shops

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
    all_expected: list[Mapping[str, Any]]
    verdict: str
    status: int
    told: Mapping[str, Any]

    @property
    def expected(self) -> Mapping[str, Any]:
        """The fact that it tells, of several the first."""
        return self.all_expected[0]

    def with_body(self, body: bytes, now: datetime | None = None) -> HookRequest:
        """The same sender with another body, or at another time, signed for it."""
        headers = sign(self.kind, body, self.secret, now or self.now, url=self.request.url)
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
    content = RecordedRequest.model_validate(told)
    given = recorded(content)
    expected = told["expected"]
    return Sample(
        kind=kind,
        secret=told["secret"],
        now=content.now,
        request=given.request,
        settings=given.settings,
        all_expected=expected if isinstance(expected, list) else [expected],
        verdict=told["verdict"],
        status=told["status"],
        told=told,
    )


def sign(  # noqa: PLR0913  # what is signed
    kind: str, body: bytes, secret: str, now: datetime, message_id: str = "msg_0cf93deb", *, url: str = ""
) -> dict[str, str]:
    """The headers, in lower case, that a sender of this kind signs a body with."""
    for signers in (senders_forms.SIGNERS, senders_ads.SIGNERS, senders_shops.SIGNERS, senders_events.SIGNERS):
        if kind in signers:
            return signers[kind](body, secret, url, now)
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
