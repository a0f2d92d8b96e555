"""What the adapters make of a body, in one line of a test."""

import json
from collections.abc import Mapping
from typing import Any

from services.capture.adapters import adapters
from services.capture.adapters.adapter import PLAIN, Fact, HookRequest, MappingSettings
from tests.samples.signed import Sample


def fact_of(known: Sample, request: HookRequest, settings: MappingSettings = PLAIN) -> Fact:
    """The only fact of a request that proves itself."""
    adapter = adapters()[known.kind]
    adapter.verify(request, [known.secret], known.now)
    (fact,) = adapter.facts(adapter.stored(request, [known.secret]), settings)
    return fact


def body_of(known: Sample) -> dict[str, Any]:
    """The body of the sample, to be changed."""
    body: dict[str, Any] = json.loads(known.request.raw_body)
    return body


def fact_of_body(known: Sample, body: Mapping[str, Any], settings: MappingSettings = PLAIN) -> Fact:
    """The only fact of another body from the same sender."""
    return fact_of(known, known.with_body(json.dumps(body).encode()), settings)
