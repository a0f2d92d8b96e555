"""What schedulers tell in other bodies than the samples, and whether it is believed."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from services.capture.adapters import adapters
from services.capture.adapters.adapter import BadSignature, Fact, HookRequest, MappingSettings
from tests.samples.signed import Sample, sample
from tests.unit.capture.told import body_of

CALENDLY = sample("calendly")
CAL_COM = sample("cal_com")


def accepts(
    known: Sample, request: HookRequest, secrets: Sequence[str] | None = None, later: timedelta = timedelta()
) -> bool:
    try:
        adapters()[known.kind].verify(request, [known.secret] if secrets is None else secrets, known.now + later)
    except BadSignature:
        return False
    return True


def facts_of(known: Sample, body: dict[str, Any], settings: MappingSettings | None = None) -> list[Fact]:
    request = known.with_body(json.dumps(body).encode())
    assert accepts(known, request)
    return adapters()[known.kind].facts(request, settings or known.settings)


def calendly(event: str = "invitee.created", **payload: Any) -> dict[str, Any]:
    body = body_of(CALENDLY)
    return body | {"event": event, "payload": body["payload"] | payload}


def cal_com(event: str = "BOOKING_CREATED", **payload: Any) -> dict[str, Any]:
    body = body_of(CAL_COM)
    return body | {"triggerEvent": event, "payload": body["payload"] | payload}
