"""What Slack tells: messages with an address are leads, buttons are actions; and who may tell it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    ActionFact,
    BadSignature,
    Fact,
    Headers,
    HookRequest,
    Ignored,
    LeadFact,
    Unmappable,
)
from tests.samples.signed import sample
from tests.unit.capture.told import body_of, fact_of, fact_of_body

KNOWN = sample("slack")
ADAPTER = adapters()["slack"]


def accepts(request: HookRequest, *secrets: str, later: timedelta = timedelta()) -> bool:
    try:
        ADAPTER.verify(request, secrets or [KNOWN.secret], KNOWN.now + later)
    except BadSignature:
        return False
    return True


def message(**changes: Any) -> dict[str, Any]:
    body = body_of(KNOWN)
    return body | {"event": body["event"] | changes}


def form(fields: dict[str, str]) -> HookRequest:
    request = KNOWN.with_body(urlencode(fields).encode())
    kept = [(name, value) for name, value in request.headers.pairs if name != "content-type"]
    return replace(request, headers=Headers((*kept, ("content-type", "application/x-www-form-urlencoded"))))


def pressed(**changes: Any) -> Fact:
    action = {"action_id": "accept", "block_id": "b", "type": "button", "value": "lead-7", "action_ts": "1772625330.5"}
    payload = {"type": "block_actions", "user": {"id": "U1"}, "trigger_id": "12.34.ab", "actions": [action]}
    return fact_of(KNOWN, form({"payload": json.dumps(payload | changes)}))


@pytest.mark.parametrize("header", [None, "", "=", "v0", "v0=", "v0=ü", "v1=00", "\udcff", "\x00", "a" * 10_000])
def test_a_header_that_does_not_parse_is_a_bad_signature(header: str | None) -> None:
    assert not accepts(KNOWN.with_headers(x_slack_signature=header))
    assert not accepts(KNOWN.with_headers(x_slack_request_timestamp=header))


@pytest.mark.parametrize(("seconds", "fits"), [(-301, False), (-299, True), (299, True), (301, False)])
def test_the_time_may_be_five_minutes_off(seconds: int, fits: bool) -> None:
    assert accepts(KNOWN.with_body(KNOWN.request.raw_body), later=timedelta(seconds=seconds)) is fits


def test_time_version_and_secret_are_part_of_the_proof() -> None:
    signature = KNOWN.request.headers.get("x-slack-signature") or ""
    assert not accepts(KNOWN.with_headers(x_slack_request_timestamp="1772625331"))
    assert not accepts(KNOWN.with_headers(x_slack_signature=signature.replace("v0=", "v1=")))
    assert not accepts(KNOWN.with_headers(x_slack_signature=signature.removeprefix("v0=")))
    assert accepts(KNOWN.request, "another secret", KNOWN.secret)
    assert not accepts(KNOWN.request, "another secret", "")


def test_the_challenge_is_answered_only_to_who_proves_the_secret() -> None:
    asked = KNOWN.with_body(json.dumps({"type": "url_verification", "challenge": "c1"}).encode())
    answer = ADAPTER.handshake(asked, [KNOWN.secret])
    assert answer is not None
    assert (answer.status, answer.body, answer.content_type) == (200, b"c1", "text/plain")
    for unsigned in (replace(asked, headers=Headers()), replace(asked, received_at=KNOWN.now + timedelta(hours=1))):
        assert ADAPTER.handshake(unsigned, [KNOWN.secret]) is None
    assert ADAPTER.handshake(asked, ["another secret"]) is None
    assert not accepts(replace(asked, headers=Headers()))
    for body in (b"{", b"[]", b'{"type":"url_verification"}', b'{"type":"event_callback","challenge":"c1"}'):
        assert ADAPTER.handshake(KNOWN.with_body(body), [KNOWN.secret]) is None


def test_a_retry_is_the_same_delivery_and_is_read_like_the_first() -> None:
    again = KNOWN.with_headers(x_slack_retry_num="1", x_slack_retry_reason="http_timeout")
    assert ADAPTER.delivery_id(again) == ADAPTER.delivery_id(KNOWN.request)
    assert fact_of(KNOWN, again) == fact_of(KNOWN, KNOWN.request)


@pytest.mark.parametrize(
    ("written", "email", "phone"),
    [
        ("<mailto:A&amp;B@acme.com|x>", "a&b@acme.com", None),
        ("<mailto:a@acme.com?subject=Hi>", "a@acme.com", None),
        ("<mailto:a%2Bb@acme.com|a+b@acme.com> <tel:+1%20415%20555%200170|call>", "a+b@acme.com", "+14155550170"),
        ("<mailto:nobody|x> <mailto:a@acme.com|y>, <tel:+1 415 555 0170|call>", "a@acme.com", "+14155550170"),
    ],
)
def test_addresses_and_numbers_are_marked_up(written: str, email: str, phone: str | None) -> None:
    fact = fact_of_body(KNOWN, message(text=written))
    assert isinstance(fact, LeadFact)
    assert (fact.person.email, fact.person.phone) == (email, phone)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": "a@acme.com"}, "no_email"),
        ({"text": "<tel:+14155550170|call>"}, "no_email"),
        ({"text": None}, "no_email"),
        ({"subtype": "message_changed"}, "event_type"),
        ({"subtype": "channel_join"}, "event_type"),
        ({"type": "reaction_added"}, "event_type"),
        ({"app_id": "A00A092C71", "subtype": "bot_message"}, "own_message"),
        ({"bot_profile": {"app_id": "A00A092C71"}}, "own_message"),
    ],
)
def test_what_is_no_new_message_with_an_address_is_ignored(changes: dict[str, Any], reason: str) -> None:
    fact = fact_of_body(KNOWN, message(**changes))
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


@pytest.mark.parametrize(
    "written",
    [
        {"attachments": [{"fallback": "x", "fields": [{"title": "Email", "value": "<mailto:a@acme.com|a@acme.com>"}]}]},
        {
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": "*Email:* <mailto:a@acme.com|a@acme.com>"}}
            ]
        },
        {"blocks": [{"type": "rich_text", "elements": [{"elements": [{"type": "link", "url": "mailto:a@acme.com"}]}]}]},
    ],
)
def test_an_app_may_write_the_address_below_the_text(written: dict[str, Any]) -> None:
    fact = fact_of_body(KNOWN, message(text="New lead", subtype="bot_message", app_id="A2", **written))
    assert isinstance(fact, LeadFact)
    assert fact.person.email == "a@acme.com"


def test_a_message_of_another_app_counts() -> None:
    assert isinstance(fact_of_body(KNOWN, message(subtype="bot_message", app_id="A2")), LeadFact)


def test_a_button_is_an_action() -> None:
    fact = pressed()
    assert isinstance(fact, ActionFact)
    assert (fact.event, fact.value, fact.person.external_id) == ("accept", "lead-7", "U1")
    assert fact.idempotency_key == "slack:12.34.ab"
    assert fact.occurred_at == datetime(2026, 3, 4, 11, 55, 30, 500000, tzinfo=UTC)


def test_a_choice_and_the_older_buttons_are_actions_too() -> None:
    chosen = pressed(actions=[{"action_id": "pick", "selected_option": {"value": "b"}}])
    older = pressed(type="interactive_message", actions=[{"name": "accept", "value": "1"}], action_ts="1772625330.5")
    assert isinstance(chosen, ActionFact)
    assert isinstance(older, ActionFact)
    assert (chosen.value, older.event, older.value) == ("b", "accept", "1")


@pytest.mark.parametrize(
    ("changes", "reason"), [({"type": "view_submission"}, "event_type"), ({"actions": []}, "no_action")]
)
def test_what_is_no_button_is_ignored(changes: dict[str, Any], reason: str) -> None:
    fact = pressed(**changes)
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_a_command_is_ignored_and_named_by_its_trigger() -> None:
    fact = fact_of(KNOWN, form({"command": "/lead", "text": "a@acme.com", "trigger_id": "56.78.cd"}))
    assert isinstance(fact, Ignored)
    assert (fact.reason, fact.idempotency_key) == ("command", "slack:56.78.cd")


def test_what_has_no_shape_of_slack_cannot_be_mapped() -> None:
    for request in (KNOWN.with_body(b"{}"), form({"payload": "no JSON"}), form({"a": "b"})):
        with pytest.raises(Unmappable):
            fact_of(KNOWN, request)
    with pytest.raises(Unmappable):
        pressed(actions=[{"value": "1"}])
