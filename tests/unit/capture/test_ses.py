"""What Amazon signs, whose topic it is, and what became of mails at SES."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.capture.adapters.adapter import BadSignature, Fact, Headers, HookRequest, Ignored, MessageFact
from services.capture.adapters.ses import ADAPTER as SES
from tests.samples.signed import sample

KNOWN_SES = sample("ses")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CERTIFICATE_AT = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem"
_OF_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_OF_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


def message(fact: Fact) -> MessageFact:
    assert isinstance(fact, MessageFact)
    return fact


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = RSA_KEY, days: int = 1) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    dated = made.not_valid_before(KNOWN_SES.now - timedelta(days=30)).not_valid_after(
        KNOWN_SES.now + timedelta(days=days)
    )
    return dated.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


PEM = certificate()


def from_amazon(found: Mapping[str, str] | None = None, **changed: Any) -> HookRequest:
    """An envelope that is signed as Amazon signs; None leaves a field out."""
    fields = {
        "Type": "Notification",
        "MessageId": "m1",
        "TopicArn": KNOWN_SES.secret,
        "Message": "{}",
        "Timestamp": "2026-03-04T12:10:30.675Z",
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_AT,
        **changed,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    names = _OF_NOTIFICATION if fields.get("Type") == "Notification" else _OF_CONFIRMATION
    signed = "".join(f"{name}\n{fields[name]}\n" for name in names if name in fields).encode()
    hashed = SHA1() if fields.get("SignatureVersion") == "1" else SHA256()  # noqa: S303  # as Amazon still signs
    fields.setdefault("Signature", base64.b64encode(RSA_KEY.sign(signed, PKCS1v15(), hashed)).decode())
    given = {CERTIFICATE_AT: PEM} if found is None else found
    return replace(KNOWN_SES.request, raw_body=json.dumps(fields).encode(), found=given)


def ses_facts(event: Mapping[str, Any]) -> list[Fact]:
    mail = {"messageId": "p1", "destination": ["a@acme.com", "b@acme.com"], "timestamp": "2026-03-04T12:10:22Z"}
    request = from_amazon(Message=json.dumps({"mail": mail, **event}))
    SES.verify(request, [KNOWN_SES.secret], KNOWN_SES.now)
    return SES.facts(replace(SES.stored(request, [KNOWN_SES.secret]), found=request.found))


def ses_refuses(request: HookRequest, now: datetime = KNOWN_SES.now, secret: str = KNOWN_SES.secret) -> bool:
    try:
        SES.verify(request, [secret], now)
    except BadSignature:
        return True
    return False


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_amazons_signature_are_accepted(version: str) -> None:
    assert not ses_refuses(from_amazon(SignatureVersion=version))
    assert not ses_refuses(from_amazon(SignatureVersion=version, Subject="Of a mail"))


@pytest.mark.parametrize(
    "changed",
    [
        {"SignatureVersion": "3"},
        {"SignatureVersion": 2},
        {"SignatureVersion": None},
        {"Signature": "x"},
        {"Signature": ""},
        {"Signature": ["x"]},
        {"Signature": base64.b64encode(b"x" * 256).decode()},
        {"MessageId": None},
        {"Timestamp": None},
        {"Timestamp": "soon"},
        {"TopicArn": None},
        {"Message": {"a": 1}},
    ],
)
def test_an_envelope_that_does_not_fit_is_refused(changed: dict[str, Any]) -> None:
    assert ses_refuses(from_amazon(**changed))


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"])
def test_every_signed_field_is_proven(name: str) -> None:
    request = from_amazon(Subject="Of a mail")
    fields = json.loads(request.raw_body)
    changed = fields | {name: fields[name] + "x"}
    assert ses_refuses(replace(request, raw_body=json.dumps(changed).encode()))


def test_a_topic_of_somebody_else_is_refused_though_amazon_signs_it() -> None:
    topic = "arn:aws:sns:us-east-1:999999999999:ses-events"
    assert ses_refuses(from_amazon(TopicArn=topic))
    assert not ses_refuses(from_amazon(TopicArn=topic), secret=topic)


@pytest.mark.parametrize(
    "address",
    [
        "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-0123.pem",
        "https://evil.example/sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.us-east-1.amazonaws.com@evil.example/SimpleNotificationService-0123.pem",
        "https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-0123.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem?x=.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem\n",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.exe",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://s3.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://bucket.s3.amazonaws.com/SimpleNotificationService-0123.pem",
        "",
        None,
        7,
    ],
)
def test_a_certificate_from_elsewhere_is_neither_asked_for_nor_believed(address: Any) -> None:
    request = from_amazon({str(address): PEM}, SigningCertURL=address)
    assert SES.certificates(request) == ()
    assert ses_refuses(request)


def test_amazons_certificate_is_asked_for_and_needed() -> None:
    china = "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0123.pem"
    topic = "arn:aws-cn:sns:cn-north-1:123456789012:ses-events"
    assert SES.certificates(from_amazon()) == (CERTIFICATE_AT,)
    assert not ses_refuses(from_amazon({china: PEM}, SigningCertURL=china, TopicArn=topic), secret=topic)
    other = certificate(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    of_another_kind = certificate(ec.generate_private_key(ec.SECP256R1()))
    for found in ({}, *({CERTIFICATE_AT: pem} for pem in ("", "x", PEM[:200], other, of_another_kind))):
        assert ses_refuses(from_amazon(found))
    assert ses_refuses(from_amazon({CERTIFICATE_AT: certificate(days=-1)}))


@pytest.mark.parametrize(("minutes", "is_refused"), [(0, False), (55, False), (70, True), (-10, True)])
def test_amazon_tries_for_an_hour(minutes: int, is_refused: bool) -> None:
    assert ses_refuses(from_amazon(), KNOWN_SES.now + timedelta(minutes=minutes)) == is_refused


def test_raw_delivery_is_refused() -> None:
    raw = replace(from_amazon(), headers=Headers.of({"x-amz-sns-rawdelivery": "true"}))
    assert ses_refuses(raw)


SUBSCRIBE_AT = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"


def confirming(found: Mapping[str, str] | None = None, **changed: Any) -> HookRequest:
    fields = {"Type": "SubscriptionConfirmation", "Token": "t", "SubscribeURL": SUBSCRIBE_AT, **changed}
    return from_amazon(found, **fields)


def test_a_subscription_is_confirmed_if_amazon_asks_for_our_topic() -> None:
    answer = SES.handshake(confirming(), [KNOWN_SES.secret])
    assert answer is not None and (answer.status, answer.body) == (200, b"")
    assert SES.confirmation(confirming()) == SUBSCRIBE_AT
    other = "arn:aws:sns:us-east-1:999999999999:ses-events"
    for request in (confirming({}), confirming(TopicArn=other), confirming(Signature="x"), from_amazon()):
        assert SES.handshake(request, [KNOWN_SES.secret]) is None
    assert ses_refuses(confirming(TopicArn=other))
    assert SES.confirmation(from_amazon(SubscribeURL=SUBSCRIBE_AT)) is None


@pytest.mark.parametrize(
    "address",
    [
        "http://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com.evil.example/?Action=ConfirmSubscription",
        "https://evil.example/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com@evil.example/?x",
        "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://169.254.169.254/?x",
        None,
    ],
)
def test_a_confirmation_elsewhere_is_not_asked_for(address: str | None) -> None:
    assert SES.confirmation(confirming(SubscribeURL=address)) is None


def test_what_is_no_event_is_ignored() -> None:
    validated = from_amazon(Message="Successfully validated SNS topic for Amazon SES event publishing.")
    goodbye = confirming(Type="UnsubscribeConfirmation")
    for request, reason in ((validated, "no_event"), (goodbye, "confirmation")):
        SES.verify(request, [KNOWN_SES.secret], KNOWN_SES.now)
        (fact,) = SES.facts(request)
        assert isinstance(fact, Ignored) and fact.reason == reason
    for event, reason in (("Send", "event_type"), ("AmazonSnsSubscriptionSucceeded", "test"), (7, "event_type")):
        (fact,) = ses_facts({"notificationType": event})
        assert isinstance(fact, Ignored) and fact.reason == reason


@pytest.mark.parametrize("name", ["eventType", "notificationType"])
@pytest.mark.parametrize(("sort", "permanent"), [("Permanent", True), ("Transient", False), ("Undetermined", False)])
def test_only_the_recipients_listed_have_bounced(name: str, sort: str, permanent: bool) -> None:
    listed = [{"emailAddress": "B@acme.com"}, {"emailAddress": "Cy <c@acme.com>"}, {"emailAddress": "b@acme.com"}]
    bounce = {"bounceType": sort, "bouncedRecipients": listed, "timestamp": "2026-03-04T12:10:30.101Z"}
    facts = [message(fact) for fact in ses_facts({name: "Bounce", "bounce": bounce})]
    named = [f"ses:{hashlib.sha256(name).hexdigest()}" for name in (b"m1:b@acme.com", b"m1:c@acme.com")]
    assert [fact.idempotency_key for fact in facts] == named, "who it was stands in no name"
    assert [fact.person.email for fact in facts] == ["b@acme.com", "c@acme.com"]
    assert {(fact.event, fact.permanent, fact.message_id) for fact in facts} == {("bounced", permanent, "p1")}


def test_what_became_of_mails_at_amazon() -> None:
    listed = [{"emailAddress": "b@acme.com"}]
    complaint = {"complainedRecipients": listed, "timestamp": "2026-03-04T12:10:30Z"}
    assert message(ses_facts({"eventType": "Complaint", "complaint": complaint})[0]).event == "complained"
    lifted = complaint | {"complaintFeedbackType": "not-spam"}
    assert message(ses_facts({"eventType": "Complaint", "complaint": lifted})[0]).event == "unknown"
    delay = {"delayedRecipients": listed}
    late = message(ses_facts({"eventType": "DeliveryDelay", "deliveryDelay": delay})[0])
    assert (late.event, late.permanent) == ("deferred", False)
    (one,) = ses_facts({"eventType": "Delivery", "delivery": {"recipients": ["b@acme.com"]}})
    assert (message(one).event, message(one).person.email) == ("delivered", "b@acme.com")
    both = ses_facts({"eventType": "Reject", "reject": {"reason": "Bad content"}})
    assert [message(fact).event for fact in both] == ["dropped", "dropped"]


def test_an_open_or_a_click_of_a_mail_to_several_is_nobodys() -> None:
    (fact,) = ses_facts({"eventType": "Open", "open": {"timestamp": "2026-03-04T12:10:30Z"}})
    told = message(fact)
    assert (told.event, told.person.identified, told.message_id) == ("opened", False, "p1")
    mail = {"destination": ["a@acme.com"], "tags": {"throughline_message_id": ["msg-1"]}}
    click = {"link": "https://x.example/?utm_source=news", "timestamp": "2026-03-04T12:10:30Z"}
    told = message(ses_facts({"eventType": "Click", "mail": mail, "click": click})[0])
    assert (told.person.email, told.url, told.utm) == ("a@acme.com", click["link"], {"source": "news"})
    assert told.message_id == "msg-1"


@pytest.mark.parametrize(
    ("old", "new", "event"),
    [
        ({}, {"unsubscribeAll": True}, "unsubscribed"),
        ({"unsubscribeAll": True}, {"unsubscribeAll": False}, "resubscribed"),
        ({}, {"topicSubscriptionStatus": [{"topicName": "a", "subscriptionStatus": "OptOut"}]}, "unsubscribed"),
        ({}, {"topicSubscriptionStatus": [{"topicName": "a", "subscriptionStatus": "OptIn"}]}, "resubscribed"),
        ({}, {}, "unknown"),
    ],
)
def test_a_change_of_preferences_is_consent(old: dict[str, Any], new: dict[str, Any], event: str) -> None:
    changed = {"newTopicPreferences": new, "oldTopicPreferences": old, "timestamp": "2026-03-04T12:10:30Z"}
    mail = {"destination": ["a@acme.com"]}
    assert message(ses_facts({"eventType": "Subscription", "subscription": changed, "mail": mail})[0]).event == event
