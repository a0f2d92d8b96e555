"""Touches to measure with: of the size and shape of real ones, over 5,000 leads."""

import random
import uuid
from datetime import UTC, datetime, timedelta

import orjson

from shared.events import TouchRecorded
from shared.ids import EventId, LeadId, TouchId

LEADS = 5_000
PAGES = ("pricing", "docs", "blog/lead-routing", "customers", "product")
SOURCES = (("google", "cpc", "spring-demo"), ("newsletter", "email", "november"), ("linkedin", "social", None))
EVENT_PADDING = "Q29weSBvZiBhbiBlbmNyeXB0ZWQgYmxvY2sgb2YgYWJvdXQgdGhlIHVzdWFsIHNpemUgb2Ygb25lIHRvdWNo" * 2


def lead_id(number: int) -> LeadId:
    """The id of a lead to measure with."""
    return LeadId(str(uuid.uuid5(uuid.NAMESPACE_OID, f"bench-{number}")))


def touch_bodies(count: int, per_body: int = 1, leads: int = LEADS) -> list[bytes]:
    """Request bodies for `POST /capture/v1/touches`, about 600 bytes a touch."""
    touches = [_touch(number, leads) for number in range(count * per_body)]
    if per_body == 1:
        return [orjson.dumps(touch) for touch in touches]
    return [orjson.dumps({"touches": touches[start : start + per_body]}) for start in range(0, len(touches), per_body)]


def form_bodies(count: int) -> list[bytes]:
    """Bodies of a form builder that names the fields of a lead as the API does, each of another person."""
    return [
        orjson.dumps(
            {
                "idempotency_key": str(uuid.uuid4()),
                "email": f"{uuid.uuid4().hex}@harborlane.example",
                "first_name": "Nora",
                "last_name": "Fieldgate",
                "company": "Harbor Lane Studio",
                "consent": {"email": "granted"},
                "page_url": "https://www.example.com/demo?utm_source=google&utm_medium=cpc&utm_campaign=spring-demo",
                "attributes": {"team_size": "11-50", "message": "We would like to see how leads are routed."},
            }
        )
        for _ in range(count)
    ]


def touch_events(count: int, leads: int = LEADS) -> list[TouchRecorded]:
    """The same as facts, as they lie in the log."""
    now = datetime.now(UTC)
    rng = random.Random(count)  # noqa: S311  # a fixed sequence, not a secret
    events = []
    for _ in range(count):
        source, medium, campaign = rng.choice(SOURCES)
        at = now - timedelta(seconds=rng.randrange(86_400))
        events.append(
            TouchRecorded(
                event_id=EventId(str(uuid.uuid4())),
                lead_id=lead_id(rng.randrange(leads)),
                occurred_at=at,
                received_at=now,
                touch_id=TouchId(str(uuid.uuid4())),
                type="page_view",
                source=source,
                medium=medium,
                campaign=campaign,
                page=f"https://www.example.com/{rng.choice(PAGES)}",
                personal=EVENT_PADDING,
            )
        )
    return events


def _touch(number: int, leads: int) -> dict[str, object]:
    source, medium, campaign = SOURCES[number % len(SOURCES)]
    page = PAGES[number % len(PAGES)]
    query = f"utm_source={source}&utm_medium={medium}&utm_campaign={campaign or 'none'}"
    return {
        "lead_id": lead_id(number % leads),
        "touch_id": str(uuid.uuid4()),
        "type": "page_view",
        "url": f"https://www.example.com/{page}?{query}&session=2f8a6c1e9b7d4f0382aa",
        "referrer": "https://www.google.com/",
        "properties": {
            "title": "How leads find their rep | Example Company",
            "scroll_depth": number % 100,
            "viewport": "1440x900",
            "language": "en-GB",
            "experiment": {"name": "hero", "variant": "b"},
            "session_id": str(uuid.uuid4()),
        },
    }
