"""What tests of forms have in common: other bodies from the same sender, and what became of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    HookRequest,
    Ignored,
    LeadFact,
    MappingSettings,
)
from tests.samples.signed import Sample
from tests.unit.capture.told import fact_of_body


def lead(known: Sample, body: Mapping[str, Any], settings: MappingSettings | None = None) -> LeadFact:
    fact = fact_of_body(known, body, settings or MappingSettings())
    assert isinstance(fact, LeadFact)
    return fact


def form(known: Sample, fields: Mapping[str, Any]) -> HookRequest:
    headers = known.with_headers(content_type="application/x-www-form-urlencoded").headers
    return replace(known.request, headers=headers, raw_body=urlencode(fields, doseq=True).encode())


def reason(fact: object) -> str:
    assert isinstance(fact, Ignored)
    return fact.reason


def refused(known: Sample, request: HookRequest, secrets: list[str] | None = None) -> None:
    with pytest.raises(BadSignature):
        adapters()[known.kind].verify(request, secrets or [known.secret], known.now)
