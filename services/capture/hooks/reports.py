"""What a provider tells of a message: what the person did with it, and what became of it."""

import re
from datetime import datetime

from services.capture.adapters.facts import MessageFact, Touch
from shared.events import MessageReported
from shared.ids import EventId, LeadId, derived_id

_REACTIONS = {
    "email": frozenset({"opened", "clicked", "replied", "complained", "unsubscribed"}),
    "sms": frozenset({"clicked", "replied", "unsubscribed"}),
    "whatsapp": frozenset({"clicked", "replied", "unsubscribed"}),
}
_REPORTS = {
    "email": frozenset({"delivered", "bounced", "blocked", "deferred", "dropped", "complained"}),
    "sms": frozenset({"sent", "delivered", "undelivered", "failed"}),
    "whatsapp": frozenset({"sent", "delivered", "undelivered", "failed"}),
}
_CODES = ("status", "code", "bounceType", "Type", "type")
# A provider's prose may hold the address; its codes hold nobody's.
_CODE = re.compile(r"[A-Za-z0-9._-]{1,40}")


def is_report(fact: MessageFact) -> bool:
    """Whether it says what became of the message."""
    return fact.event in _REPORTS[fact.channel]


def report_fact(fact: MessageFact, lead_id: LeadId, received_at: datetime, origin: str) -> MessageReported:
    """The report, named by its source and the source's own key, so that it is one however often it is delivered."""
    words = [fact.error_code, *(fact.properties.get(name) for name in _CODES)]
    return MessageReported(
        event_id=EventId(derived_id("message-report", origin, fact.idempotency_key)),
        lead_id=lead_id,
        occurred_at=fact.occurred_at,
        received_at=received_at,
        origin=origin,
        channel=fact.channel,
        event=fact.event or "",
        message_id=fact.message_id,
        permanent=fact.permanent,
        code=next((str(word) for word in words if word is not None and _CODE.fullmatch(str(word))), None),
    )


def reaction(fact: MessageFact) -> Touch | None:
    """What the person did with a message, as a touch; None for what only became of it."""
    event = fact.event or ""
    if event not in _REACTIONS[fact.channel]:
        return None
    return Touch(
        type=event if event in ("unsubscribed", "complained") else f"{fact.channel}_{event}",
        touch_id=fact.idempotency_key,
        channel=fact.channel,
        utm=fact.utm,
        url=fact.url,
        automated="machine" in fact.properties,
        properties={**fact.properties, **({"message_id": fact.message_id} if fact.message_id else {})},
    )
