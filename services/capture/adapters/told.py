"""Facts in plain words: what `hooks check` prints, a preview answers, and the samples expect."""

from datetime import UTC, datetime
from typing import Any

from services.capture.adapters.facts import (
    ActionFact,
    BookingFact,
    ConversionFact,
    CrmFact,
    ErasureFact,
    Fact,
    Ignored,
    LeadFact,
    MessageFact,
    RefundFact,
    Touch,
    TouchFact,
)

_KINDS: dict[type[Fact], str] = {
    LeadFact: "lead",
    TouchFact: "touch",
    BookingFact: "booking",
    CrmFact: "crm_change",
    ActionFact: "action",
    ConversionFact: "conversion",
    RefundFact: "refund",
    ErasureFact: "erasure",
    Ignored: "ignored",
}
_OF_PERSON = ("first_name", "last_name", "phone", "company", "title", "consent", "attributes", "anonymous_id")
_OF_FACT = (
    *("external_id", "event", "starts_at", "host_email", "message_id", "permanent", "error_code", "url", "stage"),
    *("account", "value", "refund_id", "reason"),
)


def kind_of(fact: Fact) -> str:
    """What sort of fact it is, in a word."""
    return f"{fact.channel}_event" if isinstance(fact, MessageFact) else _KINDS[type(fact)]


def told(fact: Fact) -> dict[str, Any]:
    """The fact as a JSON object: what every fact has, and of the rest what is there."""
    person = getattr(fact, "person", None)
    touch: Touch | None = getattr(fact, "touch", None)
    said: dict[str, Any] = {
        "kind": kind_of(fact),
        "email": person.email if person is not None else None,
        "idempotency_key": fact.idempotency_key,
        "occurred_at": _time(fact.occurred_at),
        "amount_minor": getattr(fact, "amount_minor", None),
        "currency": getattr(fact, "currency", None),
        "utm": dict(touch.utm if touch is not None else getattr(fact, "utm", {})),
    }
    more = {name: getattr(person, name) for name in _OF_PERSON if person is not None}
    more |= {name: getattr(fact, name) for name in _OF_FACT if hasattr(fact, name)}
    if isinstance(fact, LeadFact | TouchFact | ErasureFact):
        more["external_id"] = more.get("external_id") or fact.person.external_id
    if touch is not None:
        more |= {
            "click_ids": touch.click_ids,
            "url": touch.url,
            "channel_hint": touch.channel,
            "campaign": touch.campaign,
            "platform": touch.platform,
        }
    return said | {name: _plain(value) for name, value in more.items() if value or value is False}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return _time(value)
    return dict(value) if hasattr(value, "items") else value


def _time(at: datetime) -> str:
    at = at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
