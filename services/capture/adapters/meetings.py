"""What schedulers say about meetings, in the words of a booking."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from services.capture.adapters.errors import Unmappable
from services.capture.adapters.facts import Touch
from services.capture.adapters.fields import click_ids_of, text, touch_of, utm_of
from shared.emails import parse_email

BookingEvent = Literal["booked", "rescheduled", "canceled", "held"]


def meeting_time(value: Any) -> datetime | None:
    """When a meeting is, by ISO 8601 (without an offset it is UTC); Unmappable for a text that is no time."""
    written = text(value)
    if written is None:
        return None
    try:
        at = datetime.fromisoformat(written)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise Unmappable(f"{written[:40]!r} is not a time") from exc


def first_email(*candidates: Any) -> str | None:
    """The first of the candidates that is an address."""
    return next((email for one in candidates if (email := parse_email(text(one) or ""))), None)


def visit_before(event: BookingEvent, name: str, *places: Mapping[str, Any]) -> Touch | None:
    """The visit that led to a meeting, where the scheduler kept its parameters."""
    utm, click_ids = utm_of(*places), click_ids_of(*places)
    if not utm and not click_ids:
        return None
    return touch_of({}, Touch(type=f"meeting_{event}", touch_id=name, utm=utm, click_ids=click_ids))
