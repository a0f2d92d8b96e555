"""What WhatsApp tells: statuses, answers, and whether somebody wants marketing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.capture.adapters.adapter import BadSignature, Fact, Ignored, MessageFact, Unmappable
from services.capture.adapters.whatsapp import ADAPTER
from tests.samples.signed import sample

KNOWN = sample("whatsapp")
STATUS = {"id": "wamid.1", "status": "delivered", "timestamp": "1772621612", "recipient_id": "14155550142"}
MESSAGE = {"id": "wamid.2", "from": "14155550143", "timestamp": "1772621613", "type": "text", "text": {"body": "hi"}}
PREFERENCE = {"wa_id": "14155550144", "category": "marketing_messages", "value": "stop", "timestamp": "1772621614"}


def facts_of(**value: list[Mapping[str, Any]]) -> list[Fact]:
    body = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"value": value}]}]}
    request = KNOWN.with_body(json.dumps(body).encode())
    return ADAPTER.facts(ADAPTER.stored(request, [KNOWN.secret]))


def the_fact(**value: list[Mapping[str, Any]]) -> MessageFact:
    (fact,) = facts_of(**value)
    assert isinstance(fact, MessageFact)
    return fact


@pytest.mark.parametrize(
    ("status", "event"), [("sent", "sent"), ("delivered", "delivered"), ("read", "delivered"), ("failed", "failed")]
)
def test_a_status_tells_what_became_of_a_message(status: str, event: str) -> None:
    fact = the_fact(statuses=[STATUS | {"status": status}])
    assert (fact.event, fact.channel, fact.message_id, fact.person.phone) == (
        event,
        "whatsapp",
        "wamid.1",
        "+14155550142",
    )
    assert fact.idempotency_key == f"whatsapp:wamid.1:{status}"
    assert the_fact(statuses=[STATUS | {"status": status, "biz_opaque_callback_data": "ours"}]).message_id == "ours"


@pytest.mark.parametrize(
    ("record", "event", "consent"),
    [
        (MESSAGE, "replied", {}),
        (MESSAGE | {"text": {"body": "Stop."}}, "unsubscribed", {"whatsapp": "denied"}),
        (MESSAGE | {"type": "button", "button": {"text": "STOP"}}, "unsubscribed", {"whatsapp": "denied"}),
        (MESSAGE | {"text": {"body": "start"}}, "resubscribed", {"whatsapp": "granted"}),
        (MESSAGE | {"type": "image", "image": {"id": "1"}}, "replied", {}),
    ],
)
def test_an_answer_is_a_reply_unless_it_is_a_word_about_consent(
    record: Mapping[str, Any], event: str, consent: dict[str, str]
) -> None:
    fact = the_fact(messages=[record])
    assert (fact.event, fact.person.consent, fact.person.phone) == (event, consent, "+14155550143")


def test_who_wants_no_marketing_any_more_has_refused_it_until_they_want_it_again() -> None:
    stop, resume = (
        the_fact(user_preferences=[PREFERENCE]),
        the_fact(user_preferences=[PREFERENCE | {"value": "resume"}]),
    )
    assert [one.person.consent for one in (stop, resume)] == [{"whatsapp": "denied"}, {"whatsapp": "granted"}]
    assert stop.idempotency_key != resume.idempotency_key


def test_a_delivery_of_many_tells_each_once_and_leaves_alone_what_it_does_not_know() -> None:
    group = STATUS | {"id": "wamid.9", "recipient_type": "group"}
    facts = facts_of(statuses=[STATUS, STATUS, group, STATUS | {"status": "some_day_new"}], messages=[MESSAGE])
    assert [type(fact) for fact in facts] == [MessageFact, Ignored, Ignored, MessageFact]
    (nothing,) = facts_of(errors=[{"code": 1}])
    assert isinstance(nothing, Ignored)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"entry": 1}'])
def test_what_is_of_another_shape_cannot_be_mapped(body: bytes) -> None:
    with pytest.raises(Unmappable):
        ADAPTER.facts(ADAPTER.stored(KNOWN.with_body(body), [KNOWN.secret]))


def test_another_body_or_secret_is_refused() -> None:
    for request, secret in ((replace(KNOWN.request, raw_body=b"{}"), KNOWN.secret), (KNOWN.request, "another")):
        with pytest.raises(BadSignature):
            ADAPTER.verify(request, [secret], KNOWN.now)
