"""What Twilio signs, and what becomes of text messages."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.adapters.adapter import BadSignature, Fact, HookRequest, Ignored, MessageFact, Unmappable
from services.capture.adapters.twilio import ADAPTER
from tests.samples.signed import sample
from tests.unit.capture.told import fact_of

KNOWN = sample("twilio")
INBOUND = {"MessageSid": "SM1", "SmsStatus": "received", "From": "+14155550142", "To": "+14155550100", "Body": "hi"}


def form(fields: Mapping[str, str] | list[tuple[str, str]]) -> HookRequest:
    return KNOWN.with_body(urlencode(fields).encode())


def message(fields: Mapping[str, str]) -> MessageFact:
    fact = fact_of(KNOWN, form(fields))
    assert isinstance(fact, MessageFact)
    return fact


def stream(events: object, url: str = KNOWN.request.url) -> HookRequest:
    """Events as they are streamed: the address has the hash of the body, and it alone is signed."""
    body = json.dumps(events).encode()
    address = f"{url}&bodySHA256={hashlib.sha256(body).hexdigest()}"
    mac = hmac.new(KNOWN.secret.encode(), address.encode(), hashlib.sha1).digest()
    signed = KNOWN.with_headers(
        x_twilio_signature=base64.b64encode(mac).decode(), content_type="application/json; charset=utf-8"
    )
    return replace(signed, url=address, raw_body=body)


def facts_of(request: HookRequest) -> list[Fact]:
    ADAPTER.verify(request, [KNOWN.secret], KNOWN.now)
    return ADAPTER.facts(ADAPTER.stored(request, [KNOWN.secret]))


@pytest.mark.parametrize("header", [None, "", "x", "ÿ", "0k/uBhG1IAVIiqglEyTI6ZDuuB8", "a" * 500])
def test_a_header_that_does_not_fit_is_refused(header: str | None) -> None:
    with pytest.raises(BadSignature):
        ADAPTER.verify(KNOWN.with_headers(x_twilio_signature=header), [KNOWN.secret], KNOWN.now)


@pytest.mark.parametrize("secrets", [[], [""], ["another-token"]])
def test_another_token_is_refused(secrets: list[str]) -> None:
    with pytest.raises(BadSignature):
        ADAPTER.verify(KNOWN.request, secrets, KNOWN.now)
    ADAPTER.verify(KNOWN.request, [*secrets, KNOWN.secret], KNOWN.now)


def test_the_whole_address_is_signed() -> None:
    for url in (KNOWN.request.url.partition("?")[0], KNOWN.request.url.replace("https", "http")):
        with pytest.raises(BadSignature):
            ADAPTER.verify(replace(KNOWN.request, url=url), [KNOWN.secret], KNOWN.now)


def test_the_standard_port_may_be_signed_or_not() -> None:
    with_port = KNOWN.request.url.replace(".com/", ".com:443/")
    ADAPTER.verify(replace(KNOWN.request, url=with_port), [KNOWN.secret], KNOWN.now)
    signed_with_it = replace(KNOWN, request=replace(KNOWN.request, url=with_port)).with_body(b"A=1")
    ADAPTER.verify(replace(signed_with_it, url=KNOWN.request.url), [KNOWN.secret], KNOWN.now)


def test_blank_parameters_are_signed_and_repeated_values_once() -> None:
    request = form([("MessageSid", "SM1"), ("FromCity", ""), ("Body", "a b"), ("X", "2"), ("X", "1"), ("X", "2")])
    ADAPTER.verify(request, [KNOWN.secret], KNOWN.now)
    signed = f"{KNOWN.request.url}Bodya bFromCityMessageSidSM1X1X2".encode()
    mac = base64.b64encode(hmac.new(KNOWN.secret.encode(), signed, hashlib.sha1).digest()).decode()
    assert request.headers.get("x-twilio-signature") == mac
    without = replace(request, raw_body=request.raw_body.replace(b"FromCity=&", b""))
    assert ADAPTER.delivery_id(without) == ADAPTER.delivery_id(request)
    with pytest.raises(BadSignature):
        ADAPTER.verify(replace(without, raw_body=b"Nora=&" + without.raw_body), [KNOWN.secret], KNOWN.now)


def test_the_answer_is_an_empty_document() -> None:
    answer = ADAPTER.answer(KNOWN.request)
    assert (answer.status, answer.body, answer.content_type) == (200, b"<Response/>", "text/xml")


@pytest.mark.parametrize("body", ["stop", " STOP \n", "Stop.", "unsubscribe", "StopAll", "QUIT", "revoke", "OPTOUT"])
def test_a_word_to_stop_is_heard(body: str) -> None:
    fact = message(INBOUND | {"Body": body})
    assert (fact.event, fact.person.consent) == ("unsubscribed", {"sms": "denied"})


@pytest.mark.parametrize(("body", "event"), [("start", "resubscribed"), ("UNSTOP", "resubscribed")])
def test_a_word_to_start_again_is_heard(body: str, event: str) -> None:
    fact = message(INBOUND | {"Body": body})
    assert (fact.event, fact.person.consent) == (event, {"sms": "granted"})


@pytest.mark.parametrize("body", ["", "yes", "Please don't stop", "help", "stop by on Monday?"])
def test_any_other_text_is_a_reply(body: str) -> None:
    fact = message(INBOUND | {"Body": body})
    assert (fact.event, fact.person.phone, fact.message_id) == ("replied", "+14155550142", "SM1")
    assert (fact.idempotency_key, fact.timed_by) == ("twilio:SM1:received", "receipt")
    assert (fact.error_code, fact.person.consent) == (None, {})


@pytest.mark.parametrize(
    ("sort", "body", "event"),
    [("STOP", "arret", "unsubscribed"), ("START", "oui", "resubscribed"), ("HELP", "STOP?", "replied")],
)
def test_with_advanced_opt_out_twilio_says_what_a_text_means(sort: str, body: str, event: str) -> None:
    assert message(INBOUND | {"OptOutType": sort, "Body": body}).event == event


def test_a_text_is_known_without_its_status() -> None:
    fields = {name: value for name, value in INBOUND.items() if name != "SmsStatus"}
    assert message(fields).idempotency_key == "twilio:SM1:received"


@pytest.mark.parametrize("status", ["queued", "sending", "sent", "delivered", "failed", "read", "some-day-new"])
def test_statuses_are_twilios_own(status: str) -> None:
    fact = message({"MessageSid": "SM1", "MessageStatus": status, "To": "+14155550142", "ErrorCode": ""})
    assert (fact.event, fact.person.phone, fact.error_code) == (status.replace("-", "_"), "+14155550142", None)
    assert fact.idempotency_key == f"twilio:SM1:{status.replace('-', '_')}"


def test_each_status_of_a_message_is_a_delivery_and_each_attempt_at_it_the_same() -> None:
    sent, delivered = (form({"MessageSid": "SM1", "MessageStatus": status}) for status in ("sent", "delivered"))
    assert ADAPTER.delivery_id(sent) != ADAPTER.delivery_id(delivered)
    again = replace(sent, received_at=KNOWN.now + timedelta(hours=1))
    assert ADAPTER.delivery_id(again) == ADAPTER.delivery_id(sent)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"CallSid": "CA1", "CallStatus": "completed", "To": "+14155550142"}, "event_type"),
        ({"MessageSid": "SM1", "To": "+14155550142"}, "event_type"),
        ({"MessageSid": "SM1", "MessageStatus": "read", "To": "messenger:14155550142"}, "channel"),
        (INBOUND | {"From": "rcs:+14155550142", "Body": "STOP"}, "channel"),
    ],
)
def test_what_is_about_no_text_message_is_ignored(fields: dict[str, str], reason: str) -> None:
    fact = fact_of(KNOWN, form(fields))
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_whatsapp_is_a_channel_of_its_own() -> None:
    read = message({"MessageSid": "SM1", "MessageStatus": "read", "To": "whatsapp:+14155550142"})
    assert (read.channel, read.event, read.person.phone) == ("whatsapp", "delivered", "+14155550142")
    stop = message(INBOUND | {"From": "whatsapp:+14155550142", "Body": "STOP"})
    assert (stop.event, stop.person.consent) == ("unsubscribed", {"whatsapp": "denied"})


@pytest.mark.parametrize("to", [{"To": "55512"}, {}])
def test_what_became_of_a_message_is_told_without_the_number_too(to: dict[str, str]) -> None:
    fact = message({"MessageSid": "SM1", "MessageStatus": "sent", **to})
    assert (fact.event, fact.message_id, fact.person.identified) == ("sent", "SM1", False)


def test_a_message_is_ours_where_the_address_that_we_gave_for_it_says_so() -> None:
    url = f"{KNOWN.request.url}&throughline_message_id=ours"
    told = form({"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+14155550142"})
    fact = ADAPTER.facts(ADAPTER.stored(replace(told, url=url), [KNOWN.secret]))[0]
    assert isinstance(fact, MessageFact)
    assert (fact.message_id, fact.idempotency_key) == ("ours", "twilio:SM1:delivered")
    answered = ADAPTER.facts(ADAPTER.stored(replace(form(INBOUND), url=url), [KNOWN.secret]))[0]
    assert isinstance(answered, MessageFact)
    assert answered.message_id == "SM1"


def test_a_click_on_a_short_link_tells_which_and_when() -> None:
    click = {
        "event_type": "click",
        "sms_sid": "SM1",
        "to": "+14155550142",
        "from": "+14155550100",
        "link": "https://example.com/a?utm_source=sms",
        "click_time": "2026-03-04T12:20:00Z",
    }
    fact = message(click)
    assert (fact.event, fact.url, fact.utm) == ("clicked", click["link"], {"source": "sms"})
    assert fact.idempotency_key == "twilio:SM1:clicked:2026-03-04T12:20:00Z"
    assert (fact.occurred_at.minute, fact.timed_by) == (20, "source")


EVENT = {
    "specversion": "1.0",
    "type": "com.twilio.messaging.message.delivered",
    "id": "EZ1",
    "time": "2026-03-04T12:20:00.000Z",
    "data": {"messageSid": "SM1", "messageStatus": "DELIVERED", "to": "+14155550142", "errorCode": 0},
}


def test_a_stream_tells_each_of_its_events_once() -> None:
    reply = EVENT | {
        "id": "EZ2",
        "type": "com.twilio.messaging.inbound-message.received",
        "data": {"messageSid": "SM2", "from": "+14155550143", "to": "+14155550100", "body": "Stop"},
    }
    test = EVENT | {"id": "EZ3", "type": "com.twilio.eventstreams.test-event"}
    other = EVENT | {"id": "EZ4", "type": "com.twilio.voice.insights.call-summary.complete"}
    late = EVENT | {"id": "EZ5", "time": "soon"}
    delivered, stop, *rest = facts_of(stream([EVENT, reply, EVENT, test, other, late]))
    assert isinstance(delivered, MessageFact) and isinstance(stop, MessageFact)
    assert (delivered.idempotency_key, delivered.event, delivered.error_code) == ("twilio:EZ1", "delivered", None)
    assert (delivered.timed_by, delivered.occurred_at.minute) == ("source", 20)
    assert (stop.event, stop.person.phone) == ("unsubscribed", "+14155550143")
    assert [fact.reason for fact in rest if isinstance(fact, Ignored)] == ["test", "event_type", "unmappable"]
    assert ADAPTER.delivery_id(stream([EVENT])) == "twilio:EZ1"
    assert ADAPTER.delivery_id(stream([EVENT, reply])) == ADAPTER.delivery_id(stream([reply, EVENT]))


def test_of_json_the_address_has_to_name_the_hash_of_the_body() -> None:
    request = stream([EVENT])
    with pytest.raises(BadSignature):
        ADAPTER.verify(replace(request, raw_body=request.raw_body + b" "), [KNOWN.secret], KNOWN.now)
    unhashed = KNOWN.with_body(request.raw_body)  # the address alone is signed, and says nothing of the body
    with pytest.raises(BadSignature):
        ADAPTER.verify(unhashed, [KNOWN.secret], KNOWN.now)


@pytest.mark.parametrize("events", [[], [1], "SM1", [EVENT | {"time": "soon"}]])
def test_a_stream_of_nothing_that_can_be_read_cannot_be_mapped(events: object) -> None:
    body = json.dumps(events).encode()
    request = replace(KNOWN.request, raw_body=body if body[:1] == b"[" else b'["SM1"]')
    with pytest.raises(Unmappable):
        ADAPTER.facts(request)


@given(st.dictionaries(st.sampled_from([*INBOUND, "MessageStatus", "OptOutType", "ErrorCode", "é"]), st.text()))
def test_any_form_is_mapped_or_not(fields: dict[str, str]) -> None:
    request = form(fields)
    ADAPTER.verify(request, [KNOWN.secret], KNOWN.now)
    assert ADAPTER.delivery_id(request).startswith("twilio:")
    try:
        facts = ADAPTER.facts(request)
    except Unmappable:
        return
    assert len(facts) == 1
