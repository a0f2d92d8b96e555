"""What mail providers sign, and what became of mails."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.capture.adapters import adapters
from services.capture.adapters.adapter import BadSignature, Fact, Headers, HookRequest, Ignored, MessageFact, Unmappable
from tests.samples.signed import Sample, sample
from tests.unit.capture.told import body_of, fact_of_body

KINDS = ("mailgun", "postmark", "resend", "sendgrid", "ses")


def message(fact: Fact) -> MessageFact:
    assert isinstance(fact, MessageFact)
    return fact


def refused(kind: str, request: HookRequest, secrets: list[str], now: datetime) -> bool:
    try:
        adapters()[kind].verify(request, secrets, now)
    except BadSignature:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_secret_of_ours_nothing_is_accepted(kind: str) -> None:
    known = sample(kind)
    assert refused(kind, known.request, [], known.now)
    assert refused(kind, known.request, ["", "x", "another-secret", "hooks:another-secret"], known.now)
    assert not refused(kind, known.request, ["another-secret", known.secret], known.now)


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_knows_its_secrets(kind: str) -> None:
    adapter = adapters()[kind]
    assert adapter.secret_fault(sample(kind).secret) is None
    assert adapter.secret_fault("x") is not None


# --- SendGrid

SENDGRID = sample("sendgrid")
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_PUBLIC = base64.b64encode(EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
STAMP, SIGNATURE = "x-twilio-email-event-webhook-timestamp", "x-twilio-email-event-webhook-signature"


def from_sendgrid(body: bytes, at: datetime = SENDGRID.now) -> HookRequest:
    seconds = str(int(at.timestamp()))
    mac = EC_KEY.sign(seconds.encode() + body, ec.ECDSA(SHA256()))
    headers = Headers.of(
        {STAMP: seconds, SIGNATURE: base64.b64encode(mac).decode(), "content-type": "application/json"}
    )
    return replace(SENDGRID.request, raw_body=body, headers=headers)


def sendgrid_facts(*events: Mapping[str, Any]) -> list[Fact]:
    request = from_sendgrid(json.dumps(events).encode() + b"\r\n")
    adapters()["sendgrid"].verify(request, [EC_PUBLIC], SENDGRID.now)
    return adapters()["sendgrid"].facts(request)


def sendgrid_event(event: str, **more: Any) -> dict[str, Any]:
    return {"email": "a@acme.com", "event": event, "timestamp": 1772626050, "sg_event_id": event, **more}


def test_the_last_line_break_is_signed() -> None:
    for body in (SENDGRID.request.raw_body.rstrip(), SENDGRID.request.raw_body + b"\n"):
        assert refused("sendgrid", replace(SENDGRID.request, raw_body=body), [SENDGRID.secret], SENDGRID.now)


@pytest.mark.parametrize("name", [STAMP, SIGNATURE])
@pytest.mark.parametrize("value", [None, "", "x", "ÿ", "1e9", "-5", "MEYC", "9" * 40, "=" * 9])
def test_sendgrids_headers_that_do_not_fit_are_refused(name: str, value: str | None) -> None:
    request = SENDGRID.with_headers(**{name.replace("-", "_"): value})
    assert refused("sendgrid", request, [SENDGRID.secret], SENDGRID.now)


@pytest.mark.parametrize(("hours", "is_refused"), [(0, False), (23, False), (25, True), (-1, True)])
def test_sendgrid_tries_for_a_day(hours: int, is_refused: bool) -> None:
    request = from_sendgrid(b"[]", SENDGRID.now - timedelta(hours=hours))
    assert refused("sendgrid", request, [EC_PUBLIC], SENDGRID.now) == is_refused


def test_a_key_of_another_curve_is_no_secret() -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    der = base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    assert adapters()["sendgrid"].secret_fault(der) is not None


@pytest.mark.parametrize(
    ("event", "more", "told", "permanent"),
    [
        ("bounce", {"type": "bounce"}, "bounced", True),
        ("bounce", {}, "bounced", True),
        ("bounce", {"type": "blocked"}, "blocked", False),
        ("deferred", {}, "deferred", False),
        ("dropped", {}, "dropped", None),
        ("spamreport", {}, "complained", None),
        ("unsubscribe", {}, "unsubscribed", None),
        ("group_unsubscribe", {"asm_group_id": 1}, "unsubscribed", None),
        ("group_resubscribe", {"asm_group_id": 1}, "resubscribed", None),
    ],
)
def test_what_sendgrid_calls_it(event: str, more: dict[str, Any], told: str, permanent: bool | None) -> None:
    fact = message(sendgrid_facts(sendgrid_event(event, **more))[0])
    assert (fact.event, fact.permanent, fact.idempotency_key) == (told, permanent, f"sendgrid:{event}")


def test_an_open_by_a_machine_says_so() -> None:
    by_machine, by_person = (
        message(sendgrid_facts(sendgrid_event("open", sg_machine_open=machine))[0]) for machine in (True, False)
    )
    assert (by_machine.event, by_machine.properties) == ("opened", {"machine": "true"})
    assert by_person.properties == {}


def test_the_same_event_twice_in_one_array_is_one_and_an_odd_one_holds_up_none() -> None:
    good, odd = sendgrid_event("delivered", sg_message_id="p1"), sendgrid_event("open", timestamp="soon")
    facts = sendgrid_facts(good, good, odd, sendgrid_event("processed"), sendgrid_event("click", email=None))
    assert message(facts[0]).message_id == "p1"
    reasons = [fact.reason for fact in facts[1:] if isinstance(fact, Ignored)]
    assert reasons == ["unmappable", "event_type"]
    assert (message(facts[3]).event, message(facts[3]).person.identified) == ("clicked", False)


def test_the_test_button_tells_nothing() -> None:
    (fact,) = sendgrid_facts(sendgrid_event("delivered", sg_message_id="14c5d75ce93.dfd.64b469.filter0001.16648.0"))
    assert isinstance(fact, Ignored) and fact.reason == "test"


def test_an_array_has_one_name_in_any_order_and_events_without_a_name_their_content() -> None:
    adapter, (one, two) = adapters()["sendgrid"], (sendgrid_event("delivered"), sendgrid_event("open"))
    requests = [from_sendgrid(json.dumps(events).encode()) for events in ([one, two], [two, one, one], [one])]
    names = [adapter.delivery_id(request) for request in requests]
    assert names[0] == names[1] != names[2] == "sendgrid:delivered"
    nameless = [{**one, "sg_event_id": None}, {**two, "sg_event_id": None}]
    assert len({fact.idempotency_key for fact in sendgrid_facts(*nameless)}) == 2


@pytest.mark.parametrize("body", [b"[]", b"{}", b"[1]", b"", b'[{"event": "open", "timestamp": "soon"}]'])
def test_an_array_without_events_cannot_be_mapped(body: bytes) -> None:
    with pytest.raises(Unmappable):
        adapters()["sendgrid"].facts(from_sendgrid(body))


# --- Postmark

POSTMARK = sample("postmark")


def postmark(**changed: Any) -> MessageFact:
    return message(fact_of_body(POSTMARK, body_of(POSTMARK) | changed))


@pytest.mark.parametrize(
    "header", [None, "", "Basic", "Basic !", "Basic aG9va3M6", "Bearer 7f4ce0fda7ee6bf409f4d95facb7a26c", "ÿ"]
)
def test_other_credentials_are_refused(header: str | None) -> None:
    assert refused("postmark", POSTMARK.with_headers(authorization=header), [POSTMARK.secret], POSTMARK.now)


@pytest.mark.parametrize(
    ("sort", "event", "permanent"),
    [
        ("HardBounce", "bounced", True),
        ("BadEmailAddress", "bounced", True),
        ("SoftBounce", "bounced", False),
        ("Transient", "deferred", False),
        ("DnsError", "deferred", False),
        ("Blocked", "blocked", False),
        ("DMARCPolicy", "blocked", False),
        ("SpamComplaint", "complained", None),
        ("Unsubscribe", "unsubscribed", None),
        ("AutoResponder", "unknown", None),
        (None, "unknown", None),
    ],
)
def test_bounces_differ(sort: str | None, event: str, permanent: bool | None) -> None:
    fact = postmark(Type=sort)
    assert (fact.event, fact.permanent, fact.idempotency_key) == (event, permanent, "postmark:Bounce:692560173")


def test_postmarks_events_without_a_name_are_named_by_what_they_tell() -> None:
    told: dict[str, Any] = {
        "MessageID": "p1",
        "Recipient": "A@acme.com",
        "Email": None,
        "BouncedAt": None,
        "Metadata": {},
    }
    at = "2026-03-04T12:13:30.2735393+01:00"
    opened = postmark(RecordType="Open", ReceivedAt=at, **told)
    name = hashlib.sha256(b"Open:p1:a@acme.com:2026-03-04T11:13:30Z").hexdigest()  # who it was stands in no name
    assert (opened.idempotency_key, opened.event) == (f"postmark:{name}", "opened")
    assert (opened.message_id, opened.occurred_at.isoformat()) == ("p1", "2026-03-04T11:13:30.273539+00:00")
    clicked = postmark(RecordType="Click", ReceivedAt=at, OriginalLink="https://x.example/?utm_medium=email", **told)
    assert (clicked.event, clicked.url, clicked.utm) == (
        "clicked",
        "https://x.example/?utm_medium=email",
        {"medium": "email"},
    )
    assert postmark(RecordType="Delivery", DeliveredAt=at, **told).event == "delivered"
    assert postmark(RecordType="SpamComplaint", Email="a@acme.com").event == "complained"


@pytest.mark.parametrize(
    ("suppressed", "reason", "event"),
    [
        (True, "ManualSuppression", "unsubscribed"),
        (True, None, "unsubscribed"),
        (True, "HardBounce", "bounced"),
        (True, "SpamComplaint", "complained"),
        (False, None, "resubscribed"),
        (None, None, "unknown"),
    ],
)
def test_suppressions_are_consent(suppressed: bool | None, reason: str | None, event: str) -> None:
    told = {"ChangedAt": "2026-03-04T12:13:30Z", "SuppressSending": suppressed, "SuppressionReason": reason}
    assert postmark(RecordType="SubscriptionChange", **told).event == event


def test_mail_that_came_in_is_ignored() -> None:
    fact = fact_of_body(POSTMARK, {"RecordType": "Inbound", "MessageID": "p1"})
    assert isinstance(fact, Ignored) and fact.reason == "event_type"
    with pytest.raises(Unmappable):
        fact_of_body(POSTMARK, {"FromFull": {}})


def test_an_event_without_a_time_has_a_name_that_no_attempt_changes() -> None:
    body = {"RecordType": "Open", "MessageID": "p1", "Recipient": "a@acme.com"}
    first = POSTMARK.with_body(json.dumps(body).encode())
    again = replace(first, received_at=first.received_at + timedelta(hours=1))
    assert adapters()["postmark"].delivery_id(first) == adapters()["postmark"].delivery_id(again)


def test_the_password_alone_is_not_kept() -> None:
    password = POSTMARK.secret.partition(":")[2]
    request = POSTMARK.with_body(json.dumps({"RecordType": "Open", "Metadata": {"x": password}}).encode())
    assert password not in adapters()["postmark"].stored(request, [POSTMARK.secret]).dump().decode()
    assert password.encode() not in adapters()["postmark"].stored(request, [POSTMARK.secret]).raw_body


# --- Resend

RESEND = sample("resend")


def resend(kind: str, known: Sample = RESEND, **changed: Any) -> Fact:
    body = body_of(known)
    return fact_of_body(known, body | {"type": kind, "data": body["data"] | changed})


def test_a_retry_is_signed_afresh_and_keeps_its_name() -> None:
    again = RESEND.with_body(RESEND.request.raw_body, RESEND.now + timedelta(hours=2))
    assert refused("resend", RESEND.request, [RESEND.secret], RESEND.now + timedelta(hours=2))
    assert not refused("resend", again, [RESEND.secret], RESEND.now + timedelta(hours=2))
    assert adapters()["resend"].delivery_id(again) == adapters()["resend"].delivery_id(RESEND.request)


@pytest.mark.parametrize("header", [None, "", "v1", "v1,", "v1,x,y", "v2,abc", ",", "ÿ"])
def test_a_svix_signature_that_does_not_fit_is_refused(header: str | None) -> None:
    assert refused("resend", RESEND.with_headers(svix_signature=header), [RESEND.secret], RESEND.now)


@pytest.mark.parametrize(
    ("kind", "changed", "event", "permanent"),
    [
        ("email.bounced", {}, "bounced", True),
        ("email.bounced", {"bounce": {"type": "Transient"}}, "bounced", False),
        ("email.bounced", {"bounce": {"message": "It does not say for how long."}}, "bounced", None),
        ("email.delivery_delayed", {}, "deferred", False),
        ("email.delivered", {}, "delivered", None),
        ("email.complained", {}, "complained", None),
        ("email.opened", {}, "opened", None),
        ("contact.updated", {"email": "a@acme.com", "unsubscribed": True}, "unsubscribed", None),
    ],
)
def test_what_resend_calls_it(kind: str, changed: dict[str, Any], event: str, permanent: bool | None) -> None:
    fact = message(resend(kind, **changed))
    assert (fact.event, fact.permanent, fact.occurred_at.second) == (event, permanent, 30)


def test_a_click_has_its_link_and_tags_may_be_a_list() -> None:
    click = {"link": "https://x.example/?utm_campaign=c", "timestamp": "2026-03-04T12:19:29Z"}
    fact = message(resend("email.clicked", click=click, tags=[{"name": "throughline_message_id", "value": "msg-9"}]))
    assert (fact.url, fact.utm, fact.message_id) == (click["link"], {"campaign": "c"}, "msg-9")
    assert message(resend("email.opened", tags=None)).message_id == "a61aba82-fc6b-4089-aa42-b6e118391c95"


@pytest.mark.parametrize("to", [["a@acme.com", "b@acme.com"], [], None, ["nobody"]])
def test_resend_does_not_say_which_of_several(to: Any) -> None:
    fact = message(resend("email.bounced", to=to))
    assert (fact.event, fact.person.identified, fact.message_id) == ("bounced", False, "msg-b172d06ce1")


@pytest.mark.parametrize("kind", ["email.sent", "email.received", "contact.created", "domain.updated", "x"])
def test_other_events_of_resend_are_ignored(kind: str) -> None:
    fact = resend(kind)
    assert isinstance(fact, Ignored) and fact.reason == "event_type"
