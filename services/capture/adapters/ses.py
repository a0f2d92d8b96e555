"""Amazon SES through SNS: what became of mails. https://docs.aws.amazon.com/ses/latest/dg/event-publishing-sns.html

Our secret is the topic: Amazon signs the topics of all its customers, so that the signature alone proves nothing about
whose it is. Only the recipients that an event lists had it happen to them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    Answer,
    BadSignature,
    Fact,
    HookRequest,
    MappingSettings,
    Reading,
)
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import ignored
from services.capture.adapters.mail import OUR_MESSAGE_ID, MailEvent, address, facts_of_many, link, short
from services.capture.adapters.naming import delivery_name, told_apart
from services.capture.adapters.request import strip_secrets
from services.capture.adapters.signatures import base64_bytes, keys, require_any

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]{1,40}):[0-9]{12}:[A-Za-z0-9_.-]{1,256}", re.ASCII)
_CERTIFICATE = re.compile(
    r"https://sns\.(?P<region>[a-z0-9-]{1,40})\.amazonaws\.com(\.cn)?/SimpleNotificationService[A-Za-z0-9_-]*\.pem",
    re.ASCII,
)
_CONFIRMATION = re.compile(r"https://sns\.(?P<region>[a-z0-9-]{1,40})\.amazonaws\.com(\.cn)?/\?[\x21-\x7e]+", re.ASCII)
_SIGNED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_OF_CONFIRMATIONS = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_CONFIRMATIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
_HASHES: Mapping[str, type[SHA1] | type[SHA256]] = {"1": SHA1, "2": SHA256}
_RETRIED_FOR = timedelta(hours=1)  # a retry has the timestamp, and so the signature, of the first attempt
_CLOCKS_DIFFER = timedelta(minutes=5)
_NO_COMPLAINT = "not-spam"  # somebody took a mail out of the spam folder


class Ses(Adapter):
    """The envelope is JSON that is labelled text; the event is JSON in a text of the envelope."""

    kind: ClassVar[str] = "ses"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        try:
            envelope = read_object(request.raw_body)
        except Unmappable as exc:
            raise BadSignature("the body is no envelope of Amazon SNS") from exc
        if request.headers.all("x-amz-sns-rawdelivery"):
            raise BadSignature("raw message delivery is not signed")
        _require_signature(envelope, request, now)
        require_any(keys(secrets), [str(envelope["TopicArn"]).encode()])

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        if _envelope(request).get("Type") != "SubscriptionConfirmation":
            return None
        try:
            self.verify(request, secrets, request.received_at, settings)
        except BadSignature:
            return None  # so that it is refused as any other delivery is
        return Answer()

    def confirmation(self, request: HookRequest) -> str | None:
        envelope = _envelope(request)
        if envelope.get("Type") != "SubscriptionConfirmation":
            return None
        return _own_address(_CONFIRMATION, envelope.get("SubscribeURL"), envelope.get("TopicArn"))

    def certificates(self, request: HookRequest) -> Sequence[str]:
        envelope = _envelope(request)
        found = _own_address(_CERTIFICATE, envelope.get("SigningCertURL"), envelope.get("TopicArn"))
        return () if found is None else (found,)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        """By message and first recipient; a message is about one mail, and has a name of its own."""
        return delivery_name(self.kind, request, lambda: _names(request)[0])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        envelope = read_object(request.raw_body)
        key = self.delivery_id(request)
        if envelope.get("Type") in _CONFIRMATIONS:
            return Reading((ignored(key, request, "confirmation"),), {}, envelope)
        message = envelope.get("Message")
        if not isinstance(message, str):
            raise Unmappable("an envelope has a message")
        if message.lstrip()[:1] != "{":  # such as "Successfully validated SNS topic for Amazon SES event publishing."
            return Reading((ignored(key, request, "no_event"),), {}, envelope)
        body = read_object(message.encode())
        return Reading(_facts(body, envelope, key, request), _tags(body), body)

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        """A topic is no secret, and its name stands in what is signed."""
        return strip_secrets(request, ())

    secret_from: ClassVar[str] = "from the Amazon SNS console: Topics, the ARN of the topic that SES publishes to"

    def secret_fault(self, secret: str) -> str | None:
        return (
            None if _TOPIC.fullmatch(secret) else "the secret is the ARN of the topic, arn:aws:sns:region:account:name"
        )


def _envelope(request: HookRequest) -> Mapping[str, Any]:
    try:
        return read_object(request.raw_body)
    except Unmappable:
        return {}


def _own_address(pattern: re.Pattern[str], written: Any, topic: Any) -> str | None:
    """The address, if it is Amazon's own in the region of the topic."""
    if not isinstance(written, str) or not isinstance(topic, str) or len(written) > 2_000:
        return None
    place, ours = pattern.fullmatch(written), _TOPIC.fullmatch(topic)
    return written if place and ours and place["region"] == ours["region"] else None


def _require_signature(envelope: Mapping[str, Any], request: HookRequest, now: datetime) -> None:
    found = _own_address(_CERTIFICATE, envelope.get("SigningCertURL"), envelope.get("TopicArn"))
    if found is None:
        raise BadSignature("the certificate is not Amazon's, of the region of the topic")
    written, version = envelope.get("Signature"), envelope.get("SignatureVersion")
    signature = base64_bytes(written) if isinstance(written, str) else None
    hashed = _HASHES.get(version) if isinstance(version, str) else None
    if not signature or hashed is None:
        raise BadSignature("a signature of version 1 or 2 is needed")
    try:
        _key_in(request.found.get(found), now).verify(signature, _signed(envelope), PKCS1v15(), hashed())
    except InvalidSignature:
        raise BadSignature("the signature does not fit") from None
    _require_of_now(str(envelope["Timestamp"]), now)


def _key_in(pem: Any, now: datetime) -> RSAPublicKey:
    if not isinstance(pem, str):
        raise BadSignature("the certificate is not there")
    try:
        certificate = load_pem_x509_certificate(pem.encode(errors="replace"))
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadSignature("the certificate cannot be read") from None
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise BadSignature("the certificate is not of now")
    if not isinstance(key, RSAPublicKey):
        raise BadSignature("the certificate is for another way of signing")
    return key


def _signed(envelope: Mapping[str, Any]) -> bytes:
    """The text that Amazon signs: names and values, each with a line break."""
    names = _SIGNED_OF_CONFIRMATIONS if envelope.get("Type") in _CONFIRMATIONS else _SIGNED
    pairs = []
    for name in names:
        value = envelope.get(name)
        if value is None and name == "Subject":
            continue
        if not isinstance(value, str):
            raise BadSignature(f"{name} is needed")
        pairs.append(f"{name}\n{value}\n")
    return "".join(pairs).encode()


def _require_of_now(timestamp: str, now: datetime) -> None:
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError:
        raise BadSignature("the timestamp is no time") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not now - _RETRIED_FOR - _CLOCKS_DIFFER <= at <= now + _CLOCKS_DIFFER:
        raise BadSignature("the message is older than Amazon tries again, or ahead of now")


def _event_type(body: Mapping[str, Any]) -> str:
    """What happened: publishing of events and feedback write the same under two names."""
    return str(body.get("eventType") or body.get("notificationType"))


def _names(request: HookRequest) -> list[str]:
    """The keys of the facts; of a message without recipients, its own name."""
    envelope = read_object(request.raw_body)
    name = str(envelope["MessageId"])
    try:
        recipients = _recipients(read_object(str(envelope.get("Message")).encode()))
    except (Unmappable, UnicodeEncodeError):
        recipients = []
    return [f"{name}:{recipient}" for recipient in recipients] or [name]


def _facts(body: Mapping[str, Any], envelope: Mapping[str, Any], key: str, request: HookRequest) -> tuple[Fact, ...]:
    told = _event_type(body)
    happened = _happened(told, body)
    if happened is None:
        reason = "test" if told == "AmazonSnsSubscriptionSucceeded" else "event_type"
        return (ignored(key, request, reason),)
    recipients: list[str | None] = [*_recipients(body)]
    message = envelope.get("MessageId")
    keys_of = {one: f"{Ses.kind}:{told_apart(f'{message}:{one}')}" for one in recipients}
    readers = [(keys_of[one], _reader(keys_of[one], one, happened, body, request)) for one in recipients]
    return facts_of_many(readers or [(key, _reader(key, None, happened, body, request))], request)


def _reader(
    key: str, email: str | None, happened: str, body: Mapping[str, Any], request: HookRequest
) -> Callable[[], Fact]:
    mail, detail = object_at(body, "mail"), _detail(body)
    event = MailEvent(
        key=key,
        event=happened,
        email=email,
        at=detail.get("timestamp") or mail.get("timestamp"),
        message_id=_own_id(body) or short(mail.get("messageId")),
        permanent=detail.get("bounceType") == "Permanent" if happened == "bounced" else None,
        url=link(detail.get("link")),
        properties={
            name: detail.get(name) for name in ("bounceType", "bounceSubType", "complaintFeedbackType", "reason")
        },
    )
    return lambda: event.fact(request)


_DETAILS = {
    "Bounce": "bounce",
    "Complaint": "complaint",
    "Delivery": "delivery",
    "DeliveryDelay": "deliveryDelay",
    "Open": "open",
    "Click": "click",
    "Reject": "reject",
    "Rendering Failure": "failure",
    "Subscription": "subscription",
}
_EVENTS = {
    "Bounce": "bounced",
    "Complaint": "complained",
    "Delivery": "delivered",
    "DeliveryDelay": "deferred",
    "Open": "opened",
    "Click": "clicked",
    "Reject": "dropped",
    "Rendering Failure": "dropped",
}
_LISTED = {"Bounce": "bouncedRecipients", "Complaint": "complainedRecipients", "DeliveryDelay": "delayedRecipients"}
_OF_NOBODY_IN_PARTICULAR = ("Open", "Click", "Subscription")


def _detail(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_at(body, _DETAILS.get(_event_type(body), ""))


def _happened(told: str, body: Mapping[str, Any]) -> str | None:
    """Our name for the event; None for what means nothing here."""
    detail = _detail(body)
    if told == "Complaint" and detail.get("complaintFeedbackType") == _NO_COMPLAINT:
        return "unknown"
    if told == "Subscription":
        return _subscription(object_at(detail, "newTopicPreferences"), object_at(detail, "oldTopicPreferences"))
    return _EVENTS.get(told)


def _subscription(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Leaving any topic is taken for leaving all: better one mail too few than one that was not wanted."""
    was = {str(topic.get("topicName")): topic.get("subscriptionStatus") for topic in _topics(old)}
    changed = [
        topic.get("subscriptionStatus")
        for topic in _topics(new)
        if was.get(str(topic.get("topicName"))) != topic.get("subscriptionStatus")
    ]
    if new.get("unsubscribeAll") is True or "OptOut" in changed:
        return "unsubscribed"
    return "resubscribed" if old.get("unsubscribeAll") is True or "OptIn" in changed else "unknown"


def _topics(preferences: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        {"topicName": topic.get("topicName"), "subscriptionStatus": topic.get("subscriptionStatus")}
        for name in ("topicSubscriptionStatus", "topicDefaultSubscriptionStatus")
        for topic in objects_at(preferences, name)
    ]


def _recipients(body: Mapping[str, Any]) -> list[str]:
    """Whom it happened to. Of a mail to several, an open or a click does not say which of them it was."""
    told, detail = _event_type(body), _detail(body)
    if told in _LISTED:
        written: Any = [one.get("emailAddress") for one in objects_at(detail, _LISTED[told])]
    elif told == "Delivery":
        written = detail.get("recipients")
    else:
        written = object_at(body, "mail").get("destination")
    found = [address(one) for one in written] if isinstance(written, list) else []
    if told in _OF_NOBODY_IN_PARTICULAR and len(found) != 1:
        return []
    return list(dict.fromkeys(one for one in found if one is not None))


def _tags(body: Mapping[str, Any]) -> Mapping[str, Any]:
    tags = object_at(object_at(body, "mail"), "tags")
    return {name: values[0] for name, values in tags.items() if isinstance(values, list) and values}


def _own_id(body: Mapping[str, Any]) -> str | None:
    return short(_tags(body).get(OUR_MESSAGE_ID))


ADAPTER = Ses()
