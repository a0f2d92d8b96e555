"""What the adapters make of deliveries that need a second call, and whom they refuse."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.capture.adapters import adapters
from services.capture.adapters.adapter import BadSignature, CrmFact, Fact, HookRequest, Ignored, MappingSettings
from tests.samples.signed import Sample


def facts(known: Sample, request: HookRequest, answers: Mapping[str, Any] | None = None) -> list[Fact]:
    """The facts of a request that proves itself, with what is answered under the ids in the paths asked for."""
    adapter = adapters()[known.kind]
    adapter.verify(request, [known.secret], known.now)
    stored = adapter.stored(request, [known.secret])
    if answers is not None:
        paths = adapter.lookups(stored)
        found = {path: answers[name] for path in paths if (name := path.partition("?")[0].split("/")[-1]) in answers}
        stored = replace(stored, found=found)
    return adapter.facts(stored, known.settings)


def one(known: Sample, body: Any, answers: Mapping[str, Any] | None = None) -> Fact:
    (fact,) = facts(known, known.with_body(json.dumps(body).encode()), answers)
    return fact


def change(known: Sample, body: Any, answers: Mapping[str, Any] | None = None) -> CrmFact:
    fact = one(known, body, answers)
    assert isinstance(fact, CrmFact)
    return fact


def reason(fact: Fact) -> str | None:
    return fact.reason if isinstance(fact, Ignored) else None


def refused(known: Sample, request: HookRequest, secret: str | None = None, **defaults: Any) -> bool:
    settings = MappingSettings.of({}, defaults)
    try:
        adapters()[known.kind].verify(request, [secret or known.secret], known.now, settings)
    except BadSignature:
        return True
    return False
