"""Every signed sample is accepted, and tells exactly the facts that its file says."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.told import told
from services.capture.hooks.checking import RecordedRequest, check, recorded
from tests.samples.signed import KINDS, sample


def with_times(fact: Mapping[str, Any]) -> dict[str, Any]:
    """A time may be written in more than one way."""
    times = {name: datetime.fromisoformat(fact[name]) for name in ("occurred_at", "starts_at") if name in fact}
    return {**fact, **times}


def test_every_adapter_has_a_sample() -> None:
    assert sorted(adapters()) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_is_accepted_as_it_says(kind: str) -> None:
    given, adapter = sample(kind), adapters()[kind]
    assert adapter.handshake(given.request, [given.secret], given.settings) is None
    assert given.verdict == "accept"
    adapter.verify(given.request, [given.secret], given.now, given.settings)
    assert adapter.answer(given.request).status == given.status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_tells_its_facts(kind: str) -> None:
    given, adapter = sample(kind), adapters()[kind]
    stored = replace(adapter.stored(given.request, [given.secret]), found=given.request.found)
    facts = adapter.facts(stored, given.settings)
    assert [with_times(told(fact)) for fact in facts] == [with_times(fact) for fact in given.all_expected]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_is_answered_as_it_says(kind: str) -> None:
    given = sample(kind)
    said = check(recorded(RecordedRequest.model_validate(given.told)))
    assert (said["verdict"], said["status"]) == (given.verdict, given.status)
    if "answer" in given.told:
        assert said["answer"].items() >= given.told["answer"].items()
    assert "quarantined" not in said


HANDSHAKES = [kind for kind in KINDS if "handshake" in sample(kind).told]


@pytest.mark.parametrize("kind", HANDSHAKES)
def test_a_handshake_is_answered_and_tells_nothing(kind: str) -> None:
    given = sample(kind).told
    shake = given["handshake"]
    base = {**given, "verify_token": shake.get("verify_token")}
    query = f"?{shake['query']}" if "query" in shake else ""
    asked = {**base, "method": shake["method"], "url": given["url"].partition("?")[0] + query}
    asked |= {"body": shake.get("body", ""), "headers": shake.get("headers", given["headers"])}
    said = check(recorded(RecordedRequest.model_validate(asked)))
    assert (said["verdict"], said["status"], said["facts"]) == ("accept", shake["answer"]["status"], [])
    assert said.get("answer", {}).get("body", "") == shake["answer"].get("body", "")
    if "refuse" in shake:
        url = f"{given['url'].partition('?')[0]}?{shake['refuse']['query']}"
        refused = check(recorded(RecordedRequest.model_validate({**asked, "url": url})))
        assert (refused["verdict"], refused["status"]) == ("refuse", shake["refuse"]["status"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_request_comes_back_as_it_was(kind: str) -> None:
    request = sample(kind).request
    assert type(request).load(request.dump()) == request
