"""What Mailgun signs, which is not the body, and what became of mails there."""

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from services.capture.adapters.adapter import BadSignature, Fact, Headers, HookRequest, Ignored, MessageFact, Unmappable
from services.capture.adapters.mailgun import ADAPTER
from tests.samples.signed import sample
from tests.unit.capture.told import body_of, fact_of_body

MAILGUN = sample("mailgun")


def message(fact: Fact) -> MessageFact:
    assert isinstance(fact, MessageFact)
    return fact


def refused(request: HookRequest, now: datetime) -> bool:
    try:
        ADAPTER.verify(request, [MAILGUN.secret], now)
    except BadSignature:
        return True
    return False


def mailgun_signature(
    timestamp: str = "1772626590", token: str = "t" * 50, key: str = MAILGUN.secret
) -> dict[str, str]:
    mac = hmac.new(key.encode(), f"{timestamp}{token}".encode(), hashlib.sha256).hexdigest()
    return {"timestamp": timestamp, "token": token, "signature": mac}


def mailgun(**changed: Any) -> Fact:
    body = body_of(MAILGUN)
    body["event-data"] |= changed
    return fact_of_body(MAILGUN, body)


def mailgun_form(fields: list[tuple[str, str]]) -> HookRequest:
    headers = Headers.of({"content-type": "application/x-www-form-urlencoded"})
    return replace(MAILGUN.request, raw_body=urlencode(fields).encode(), headers=headers)


@pytest.mark.parametrize(
    "changed",
    [
        {"timestamp": "1772626591"},
        {"token": "x"},
        {"token": ""},
        {"signature": "x"},
        {"signature": None},
        {"timestamp": []},
    ],
)
def test_mailguns_signature_has_to_fit(changed: dict[str, Any]) -> None:
    body = body_of(MAILGUN)
    body["signature"] |= changed
    assert refused(MAILGUN.with_body(json.dumps(body).encode()), MAILGUN.now)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"signature": "x"}', b'{"signature": {}, "signature": {}}'])
def test_a_body_without_a_signature_is_refused(body: bytes) -> None:
    assert refused(MAILGUN.with_body(body), MAILGUN.now)


@pytest.mark.parametrize(("hours", "is_refused"), [(0, False), (8, False), (9, True), (-1, True)])
def test_mailgun_tries_for_eight_hours(hours: int, is_refused: bool) -> None:
    assert refused(MAILGUN.request, MAILGUN.now + timedelta(hours=hours)) == is_refused


def test_a_subaccounts_delivery_is_signed_by_its_parent_too() -> None:
    body = body_of(MAILGUN) | {"signature": mailgun_signature(key="of the subaccount"), "parent-signature": {}}
    assert refused(MAILGUN.with_body(json.dumps(body).encode()), MAILGUN.now)
    body["parent-signature"] = mailgun_signature()
    assert not refused(MAILGUN.with_body(json.dumps(body).encode()), MAILGUN.now)


@pytest.mark.parametrize(
    ("changed", "event", "permanent"),
    [
        ({"severity": "temporary"}, "deferred", False),
        ({"reason": "suppress-bounce"}, "bounced", True),
        ({"reason": "suppress-unsubscribe"}, "dropped", None),
        ({"reason": "espblock"}, "blocked", False),
        ({"event": "rejected"}, "dropped", None),
        ({"event": "complained"}, "complained", None),
        ({"event": "unsubscribed"}, "unsubscribed", None),
        ({"event": "opened"}, "opened", None),
    ],
)
def test_what_mailgun_calls_it(changed: dict[str, Any], event: str, permanent: bool | None) -> None:
    fact = message(mailgun(**changed))
    assert (fact.event, fact.permanent) == (event, permanent)


def test_mailguns_names_are_of_a_day_and_no_attempt_changes_them() -> None:
    assert mailgun(timestamp=1772668799.9).idempotency_key == "mailgun:M2EyN2YzOGI3YWJjMDU1:2026-03-04"
    assert mailgun(timestamp=1772668800.1).idempotency_key == "mailgun:M2EyN2YzOGI3YWJjMDU1:2026-03-05"
    body = body_of(MAILGUN) | {"signature": mailgun_signature("1772630000")}
    again = MAILGUN.with_body(json.dumps(body).encode())
    assert ADAPTER.delivery_id(again) == ADAPTER.delivery_id(MAILGUN.request)


def test_mailguns_own_message_id_stands_in_for_ours() -> None:
    assert message(mailgun(**{"user-variables": {}})).message_id == "f43f1d90a477edff90bc@mg.example.com"


def test_mailguns_tests_and_other_events_are_ignored() -> None:
    for fact, reason in ((mailgun(flags={"is-test-mode": True}), "test"), (mailgun(event="accepted"), "event_type")):
        assert isinstance(fact, Ignored) and fact.reason == reason
    with pytest.raises(Unmappable):
        mailgun(event=None)


@pytest.mark.parametrize("reason", [["bounce"], {"a": 1}, None])
def test_a_failure_for_an_odd_reason_is_a_failure(reason: Any) -> None:
    assert message(mailgun(reason=reason)).event == "bounced"


def test_in_an_old_form_mailguns_fields_come_last() -> None:
    signed = list(mailgun_signature().items())
    fields = [("event", "mine"), ("token", "mine"), ("throughline_message_id", "msg-1")]
    fields += [("event", "clicked"), ("recipient", "a@acme.com"), ("url", "https://x.example/?utm_source=a"), *signed]
    request = mailgun_form(fields)
    ADAPTER.verify(request, [MAILGUN.secret], MAILGUN.now)
    (fact,) = ADAPTER.facts(request)
    assert (message(fact).event, message(fact).message_id) == ("clicked", "msg-1")
    assert (message(fact).person.email, message(fact).utm) == ("a@acme.com", {"source": "a"})
    assert fact.idempotency_key == f"mailgun:{'t' * 50}:2026-03-04"
    forged = mailgun_form([*fields, ("token", "x")])
    assert refused(forged, MAILGUN.now)
