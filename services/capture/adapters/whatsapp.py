"""WhatsApp by Meta's Cloud API: what became of messages, and what people answer.

https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from services.capture.adapters.adapter import (
    PLAIN,
    Fact,
    HookRequest,
    MappingSettings,
    MessageFact,
    Reading,
    Unmappable,
)
from services.capture.adapters.answers import CONSENT, meaning_of
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import happened_at, ignored, person_of, text
from services.capture.adapters.mail import batch_name, content_name, facts_of_many, short
from services.capture.adapters.meta import ByMeta
from services.capture.adapters.naming import delivery_name

_EVENTS = {"sent": "sent", "delivered": "delivered", "read": "delivered", "failed": "failed"}
_PREFERENCES = {"stop": "unsubscribed", "resume": "resubscribed"}
_OUR_ID = "biz_opaque_callback_data"


class _Told(NamedTuple):
    """One thing that is told: its key, what it means (None for nothing to us), the number, and the record itself."""

    key: str
    event: str | None
    phone: str | None
    record: Mapping[str, Any]
    message_id: str | None = None
    said: str | None = None


class WhatsApp(ByMeta):
    """A delivery holds statuses, messages and preferences of many people perhaps; numbers come without a plus."""

    kind: ClassVar[str] = "whatsapp"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name([one.key for one in _told(request)]))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        told = _told(request)
        if not told:
            return Reading((ignored(self.delivery_id(request), request, "field"),), {}, body)
        readers = [
            (f"{self.kind}:{one.key}", _reader(f"{self.kind}:{one.key}", one, request, settings)) for one in told
        ]
        return Reading(facts_of_many(readers, request), {}, body)


def _told(request: HookRequest) -> list[_Told]:
    return [one for value in _values(read_object(request.raw_body)) for one in _of(value)]


def _values(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if not isinstance(body.get("entry"), list):
        raise Unmappable("a delivery has entries")
    for entry in objects_at(body, "entry"):
        for change in objects_at(entry, "changes"):
            yield object_at(change, "value")


def _of(value: Mapping[str, Any]) -> Iterator[_Told]:
    for one in objects_at(value, "statuses"):
        status = short(one.get("status")) or ""
        wamid, to_group = short(one.get("id")), one.get("recipient_type") == "group"
        name = f"{wamid}:{status}"
        about = short(one.get(_OUR_ID)) or wamid
        yield _Told(name, None if to_group else _EVENTS.get(status), _number(one.get("recipient_id")), one, about)
    for one in objects_at(value, "messages"):
        said = _words(one)
        yield _Told(f"{short(one.get('id'))}:received", meaning_of(said), _number(one.get("from")), one, said=said)
    for one in objects_at(value, "user_preferences"):
        about_marketing = one.get("category") == "marketing_messages"
        event = _PREFERENCES.get(str(one.get("value"))) if about_marketing else None
        yield _Told(f"preference:{content_name(one)}", event, _number(one.get("wa_id")), one)


def _words(message: Mapping[str, Any]) -> str | None:
    """What somebody wrote, or what stands on the button that they pressed."""
    match message.get("type"):
        case "text":
            return short(object_at(message, "text").get("body"))
        case "button":
            return short(object_at(message, "button").get("text"))
        case _:
            return None


def _number(told: Any) -> str | None:
    digits = text(told)
    return f"+{digits}" if digits is not None and digits.isdecimal() else None


def _reader(key: str, told: _Told, request: HookRequest, settings: MappingSettings) -> Callable[[], Fact]:
    return lambda: _fact(key, told, request, settings)


def _fact(key: str, told: _Told, request: HookRequest, settings: MappingSettings) -> Fact:
    if told.event is None:
        return ignored(key, request, "event_type")
    at, timed_by = happened_at(told.record.get("timestamp"), request)
    errors = objects_at(told.record, "errors")
    person = person_of({"phone": told.phone, "consent.whatsapp": CONSENT.get(told.event)}, settings.phone_country)
    return MessageFact(
        idempotency_key=key,
        occurred_at=at,
        timed_by=timed_by,
        event=told.event,
        person=person,
        channel="whatsapp",
        message_id=told.message_id,
        error_code=next((short(error.get("code")) for error in errors), None),
        properties={"text": told.said} if told.said is not None else {},
    )


ADAPTER = WhatsApp()
