"""What shops tell in other bodies than the samples, and whether it is believed."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.capture.adapters import adapters
from services.capture.adapters.adapter import PLAIN, BadSignature, Fact, Headers, HookRequest, MappingSettings
from tests.samples.signed import Sample


def accepts(known: Sample, request: HookRequest, *secrets: str, settings: MappingSettings = PLAIN) -> bool:
    """Whether the request proves one of the secrets, or else the sample's own; days later, since no time is signed."""
    try:
        adapters()[known.kind].verify(request, secrets or [known.secret], known.now + timedelta(days=3), settings)
    except BadSignature:
        return False
    return True


def facts_of(
    known: Sample, body: Mapping[str, Any], found: Mapping[str, Any] | None = None, **headers: str
) -> list[Fact]:
    """The facts of another body from the same sender, with what was looked up for it."""
    request = known.with_body(json.dumps(body).encode())
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = [(name, value) for name, value in request.headers.pairs if name not in given]
    request = replace(request, headers=Headers((*kept, *given.items())), found=found or {})
    assert accepts(known, request)
    return adapters()[known.kind].facts(request)


def fact_of(known: Sample, body: Mapping[str, Any], found: Mapping[str, Any] | None = None, **headers: str) -> Fact:
    """The only one of them."""
    (fact,) = facts_of(known, body, found, **headers)
    return fact


def mac(secret: str, signed: bytes, algorithm: Any = hashlib.sha256) -> str:
    """What the sender would write under this, in base64."""
    return base64.b64encode(hmac.new(secret.encode(), signed, algorithm).digest()).decode()
