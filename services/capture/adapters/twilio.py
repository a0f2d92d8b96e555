"""Twilio: what became of text messages, and what people answer. https://www.twilio.com/docs/usage/webhooks

Callbacks are forms; Event Streams are JSON arrays. Callbacks tell no time. Messages by other ways than SMS and WhatsApp
are left alone, since consent to these says nothing about them.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    Answer,
    BadSignature,
    Fact,
    HookRequest,
    MappingSettings,
    MessageFact,
    Reading,
)
from services.capture.adapters.answers import CONSENT, meaning_of
from services.capture.adapters.bodies import object_at, read_json
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import happened_at, ignored, person_of, query_of, text, type_name, utm_of
from services.capture.adapters.mail import OUR_MESSAGE_ID, batch_name, content_name, facts_of_many, link, short
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, keys, require_any

_SIGNATURE = "x-twilio-signature"
_BODY_HASH = "bodySHA256"
_PORTS = {"https": 443, "http": 80}
_MOST_FIELDS = 1_000
_MESSAGE_EVENTS = ("com.twilio.messaging.message.", "com.twilio.messaging.inbound-message.")
_WHATSAPP = "whatsapp:"
_RECEIVED, _CLICKED, _READ = "received", "clicked", "read"
_TEST_EVENT = "com.twilio.eventstreams.test-event"


class Twilio(Adapter):
    """The signature is over the public address and, of a form, every parameter, blank ones too."""

    kind: ClassVar[str] = "twilio"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        signed = _parameters(request) if _is_form(request) else _require_body_hash(request)
        expected = (
            base64.b64encode(hmac.new(key, f"{url}{signed}".encode(errors="surrogatepass"), hashlib.sha1).digest())
            for key in keys(secrets)
            for url in _spellings(request.url)
        )
        require_any(expected, (header_bytes(value) for value in request.headers.all(_SIGNATURE)))

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name([message.name for message in _messages(request)]))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        messages = _messages(request)
        if not messages:
            raise Unmappable("the delivery has no events")
        readers = [
            (f"{self.kind}:{message.name}", _reader(f"{self.kind}:{message.name}", message, request, settings))
            for message in messages
        ]
        body = dict(reversed(_form(request))) if _is_form(request) else read_json(request.raw_body)
        return Reading(facts_of_many(readers, request), body if isinstance(body, dict) else {}, body)

    def answer(self, request: HookRequest) -> Answer:
        """An empty document: Twilio takes any other answer to a text for something to do."""
        return Answer(body=b"<Response/>", content_type="text/xml")


class _Message(NamedTuple):
    """An event about one message: its name, its fields by their names in small letters, its time where it has one."""

    name: str
    fields: Mapping[str, Any]
    kind: str | None = None
    at: Any = None

    def field(self, *names: str) -> str | None:
        """The first of the fields that says something."""
        return next((told for name in names if (told := short(self.fields.get(name))) is not None), None)


def _squeezed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by one spelling of their names: what callbacks call `MessageSid`, streams call `messageSid`."""
    return {name.lower().replace("_", ""): value for name, value in fields.items()}


def _is_form(request: HookRequest) -> bool:
    """By what it looks like, so that what is read is what was proven."""
    return request.raw_body.lstrip()[:1] not in (b"{", b"[")


def _form(request: HookRequest) -> list[tuple[str, str]]:
    try:
        written = request.raw_body.decode()
        return parse_qsl(written, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as exc:
        raise Unmappable("the form cannot be read") from exc


def _parameters(request: HookRequest) -> str:
    """The parameters as they are signed: sorted, each value of a repeated one once."""
    try:
        pairs = set(_form(request))
    except Unmappable as exc:
        raise BadSignature("the form cannot be read") from exc
    return "".join(f"{name}{value}" for name, value in sorted(pairs))


def _require_body_hash(request: HookRequest) -> str:
    """Of what is no form only the address is signed, in which the hash of the body stands."""
    given = request.query.get(_BODY_HASH, "").lower().encode(errors="replace")
    require_any([hashlib.sha256(request.raw_body).hexdigest().encode()], [given])
    return ""


def _spellings(url: str) -> list[str]:
    """The address as it is, without a port, and with the standard one: Twilio signs any of them."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return [url]
    rest = url[len(f"{parts.scheme}://{parts.netloc}") :]
    bare = f"{parts.scheme}://{parts.netloc.removesuffix(f':{port}')}"
    return [url, f"{bare}{rest}", f"{bare}:{_PORTS.get(parts.scheme, 443)}{rest}"]


def _messages(request: HookRequest) -> list[_Message]:
    if not _is_form(request):
        return _streamed(read_json(request.raw_body))
    form = dict(reversed(_form(request)))
    if any("\x00" in part for pair in form.items() for part in pair):
        raise Unmappable("a text has a NUL in it")
    fields = _squeezed(form)
    message = _Message("", fields, at=fields.get("clicktime"))
    sid, state = _sid(message), _state(message)
    if sid is None or state is None:
        return [message._replace(name=hashlib.sha256(request.raw_body).hexdigest())] if form else []
    clicked = f":{message.at}" if state == _CLICKED and message.at else ""  # a link can be clicked more than once
    return [message._replace(name=f"{sid}:{state}{clicked}")]


def _streamed(body: Any) -> list[_Message]:
    """The CloudEvents of a stream."""
    events = body if isinstance(body, list) else [body]
    if not all(isinstance(event, dict) for event in events):
        raise Unmappable("the body is not a list of events")
    return [
        _Message(
            name=short(event.get("id")) or content_name(event),
            fields=_squeezed(object_at(event, "data")),
            kind=str(event.get("type")),
            at=event.get("time"),
        )
        for event in events
    ]


def _sid(message: _Message) -> str | None:
    return message.field("messagesid", "smssid", "smsmessagesid")


def _state(message: _Message) -> str | None:
    """The provider's own word for what became of the message; `received` for one that came in."""
    if _is_inbound(message):
        return _RECEIVED
    if message.field("eventtype") == "click":
        return _CLICKED
    last_word = (message.kind or "").rpartition(".")[2]
    return type_name(message.field("messagestatus", "smsstatus") or last_word) or None


def _is_inbound(message: _Message) -> bool:
    if message.kind is not None:
        return message.kind.startswith(_MESSAGE_EVENTS[1])
    status = message.field("messagestatus", "smsstatus")
    has_text = "body" in message.fields or message.field("optouttype") is not None
    return status in (_RECEIVED, "receiving") or (status is None and has_text)


def _reader(key: str, message: _Message, request: HookRequest, settings: MappingSettings) -> Callable[[], Fact]:
    return lambda: _fact(key, message, request, settings)


def _fact(key: str, message: _Message, request: HookRequest, settings: MappingSettings) -> Fact:
    if message.kind is not None and not message.kind.startswith(_MESSAGE_EVENTS):
        return ignored(key, request, "test" if message.kind == _TEST_EVENT else "event_type")
    sid, state = _sid(message), _state(message)
    if sid is None or state is None:
        return ignored(key, request, "event_type")
    inbound = _is_inbound(message)
    phone = message.field("from" if inbound else "to")
    by_whatsapp = phone is not None and phone.startswith(_WHATSAPP)
    if phone is not None and ":" in (phone := phone.removeprefix(_WHATSAPP)):  # messenger:…, rcs:…
        return ignored(key, request, "channel")
    channel: Literal["sms", "whatsapp"] = "whatsapp" if by_whatsapp else "sms"
    at, timed_by = happened_at(message.at, request)
    url = link(message.fields.get("link")) if state == _CLICKED else None
    error = message.field("errorcode")
    event = _answered(message) if inbound else "delivered" if by_whatsapp and state == _READ else state
    return MessageFact(
        idempotency_key=key,
        occurred_at=at,
        timed_by=timed_by,
        event=event,
        person=person_of({"phone": phone, f"consent.{channel}": CONSENT.get(event)}, settings.phone_country),
        channel=channel,
        message_id=sid if inbound else short(request.query.get(OUR_MESSAGE_ID)) or sid,
        error_code=None if inbound or error == "0" else error,
        url=url,
        utm=utm_of(query_of(url)),
        properties={"text": said} if inbound and (said := message.field("body")) else {},
    )


def _answered(message: _Message) -> str:
    """What a text that came in means. With advanced opt-out Twilio says so, else the word does."""
    match (message.field("optouttype") or "").upper():
        case "STOP":
            return "unsubscribed"
        case "START":
            return "resubscribed"
        case "HELP":
            return "replied"
        case _:
            return meaning_of(text(message.fields.get("body")))


ADAPTER = Twilio()
