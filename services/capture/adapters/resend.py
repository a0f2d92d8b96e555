"""Resend: what became of mails. https://resend.com/docs/dashboard/webhooks/event-types

Signed as Standard Webhooks are. One mail has many events, and one event can be about a mail to several people without
saying to which of them it happened.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, Adapter, Fact, HookRequest, MappingSettings, Reading
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import ignored
from services.capture.adapters.mail import OUR_MESSAGE_ID, MailEvent, address, link, short
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.standard_webhooks import ADAPTER as STANDARD
from services.capture.adapters.standard_webhooks import new_standard_secret, verify_standard, webhook_id

_EVENTS = {
    "email.delivered": "delivered",
    "email.delivery_delayed": "deferred",
    "email.bounced": "bounced",
    "email.complained": "complained",
    "email.opened": "opened",
    "email.clicked": "clicked",
    "email.failed": "dropped",
    "email.suppressed": "dropped",
}


class Resend(Adapter):
    """The delivery's time is that of the event; that within `data` is when the mail was made."""

    kind: ClassVar[str] = "resend"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        verify_standard(request, secrets, now)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: webhook_id(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        if not isinstance(body.get("type"), str):
            raise Unmappable("an event has a type")
        data = object_at(body, "data")
        tags = _tags(data)
        return Reading((_fact(self.delivery_id(request), body, tags, request),), tags, body)

    def new_secret(self) -> str:
        return new_standard_secret()

    def secret_fault(self, secret: str) -> str | None:
        return STANDARD.secret_fault(secret)


def _fact(key: str, body: Mapping[str, Any], tags: Mapping[str, Any], request: HookRequest) -> Fact:
    data = object_at(body, "data")
    if body["type"] == "contact.updated" and data.get("unsubscribed") is True:
        left = MailEvent(
            key=key,
            event="unsubscribed",
            email=address(data.get("email")),
            at=body.get("created_at"),
            message_id=None,
        )
        return left.fact(request)
    happened = _EVENTS.get(body["type"])
    if happened is None:
        return ignored(key, request, "event_type")
    bounce = object_at(data, "bounce")
    return MailEvent(
        key=key,
        event=happened,
        email=_recipient(data),
        at=body.get("created_at"),
        message_id=short(tags.get(OUR_MESSAGE_ID)) or short(data.get("email_id")),
        permanent=bounce["type"] == "Permanent" if happened == "bounced" and bounce.get("type") else None,
        url=link(object_at(data, "click").get("link")) if happened == "clicked" else None,
        properties={name: bounce.get(name) for name in ("type", "subType", "message")},
    ).fact(request)


def _recipient(data: Mapping[str, Any]) -> str | None:
    """The only recipient; None of several, since nobody can say which."""
    written = data.get("to")
    listed = written if isinstance(written, list) else [written]
    return address(listed[0]) if len(listed) == 1 else None


def _tags(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tags by name, which come as an object or as a list of names and values."""
    listed = {str(tag.get("name")): tag.get("value") for tag in objects_at(data, "tags")}
    return listed or object_at(data, "tags")


ADAPTER = Resend()
