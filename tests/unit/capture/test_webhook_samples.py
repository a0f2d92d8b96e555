"""Every signed sample is accepted, and tells exactly the facts that its file says."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import ConversionFact, Fact, LeadFact
from tests.samples.signed import KINDS, sample

# What samples say about a person, a visit and a fact; the facts themselves say more.
PERSON = ("email", "first_name", "last_name", "phone", "company", "consent", "attributes", "anonymous_id")


def as_sample(fact: Fact) -> dict[str, Any]:
    """The fact in the words of the samples, without what is empty."""
    assert isinstance(fact, LeadFact | ConversionFact)
    touch = fact.touch
    told: dict[str, Any] = {name: getattr(fact.person, name) for name in PERSON}
    told |= {"external_id": fact.external_id, "event": fact.event}
    if touch is not None:
        told |= {"click_ids": touch.click_ids, "url": touch.url, "channel_hint": touch.channel}
    return {name: value for name, value in told.items() if value} | {
        "kind": "conversion" if isinstance(fact, ConversionFact) else "lead",
        "idempotency_key": fact.idempotency_key,
        "occurred_at": fact.occurred_at,
        "amount_minor": fact.amount_minor if isinstance(fact, ConversionFact) else None,
        "currency": fact.currency if isinstance(fact, ConversionFact) else None,
        "utm": touch.utm if touch else {},
    }


def with_time(expected: Mapping[str, Any]) -> dict[str, Any]:
    return {**expected, "occurred_at": datetime.fromisoformat(expected["occurred_at"])}


def test_every_adapter_has_a_sample() -> None:
    assert sorted(adapters()) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_is_accepted_as_it_says(kind: str) -> None:
    given, adapter = sample(kind), adapters()[kind]
    assert adapter.handshake(given.request, [given.secret]) is None
    assert given.verdict == "accept"
    adapter.verify(given.request, [given.secret], given.now)
    assert adapter.answer(given.request).status == given.status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_tells_its_facts(kind: str) -> None:
    given, adapter = sample(kind), adapters()[kind]
    stored = adapter.stored(given.request, [given.secret])
    facts = adapter.facts(stored, given.settings)
    assert [as_sample(fact) for fact in facts] == [with_time(given.expected)]
    assert adapter.delivery_id(stored, given.settings) == given.expected["idempotency_key"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_request_comes_back_as_it_was(kind: str) -> None:
    request = sample(kind).request
    assert type(request).load(request.dump()) == request
