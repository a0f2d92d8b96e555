"""Touches and money as facts: their ids, and what of them may stand in clear."""

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

import orjson

from services.capture.adapters.fields import CLICK_IDS
from services.capture.facts.inputs import ConversionInput, CostInput, RefundInput, TouchFields
from shared.events import ConversionRecorded, CostRecorded, RefundRecorded, TouchRecorded
from shared.ids import ConversionId, EventId, LeadId, derived_id, new_id
from shared.personal import Draft

API = "api"
_TRACKING = re.compile("|".join(("utm_", *sorted(CLICK_IDS))), re.IGNORECASE)
_CLICKED = 4
_PLACES = {"utm_source": 0, "utm_medium": 1, "utm_campaign": 2, "utm_content": 3} | dict.fromkeys(CLICK_IDS, _CLICKED)
_MOST_PARTS = 200
_LONGEST = 255
_validate_touch = TouchRecorded.__pydantic_validator__.validate_python


def touch_draft(  # noqa: PLR0913  # what a touch is made of
    touch: TouchFields,
    *,
    lead_id: LeadId,
    occurred_at: datetime,
    received_at: datetime,
    origin: str = API,
    anonymous_id: str | None = None,
    click_ids: tuple[str, ...] = (),
    default_id: str | None = None,
) -> Draft:
    """A touch as a fact. Without a `touch_id` it is named by `default_id`, without that at random.

    Queries, properties and the anonymous id are personal; they leave only encrypted.
    """
    touch_id = touch.touch_id or default_id
    if touch_id is None:
        touch_id = event_id = new_id()
    else:
        event_id = derived_id("touch", origin, touch_id, _digest(lead_id, touch))
    source, medium, campaign, content = touch.source, touch.medium, touch.campaign, touch.content
    page = url = touch.url
    if url:
        page = url.partition("#")[0]
        page, _, query = page.partition("?")
        if query and _TRACKING.search(query):
            told, clicked = tracking_in(query)
            click_ids = click_ids or clicked
            source, medium = source or told[0], medium or told[1]
            campaign, content = campaign or told[2], content or told[3]
    personal: dict[str, Any] = {}
    if url != page:
        personal["url"] = url
    if touch.referrer:
        personal["referrer"] = touch.referrer
    if anonymous_id is not None:
        personal["anonymous_id"] = anonymous_id
    if touch.properties:
        personal["properties"] = touch.properties
    # Validating a dict is four times as fast as `model_construct`.
    event: TouchRecorded = _validate_touch(
        {
            "event_id": event_id,
            "lead_id": lead_id,
            "occurred_at": occurred_at,
            "received_at": received_at,
            "origin": origin,
            "touch_id": touch_id,
            "type": touch.type,
            "channel": touch.channel,
            "source": source,
            "medium": medium,
            "campaign": campaign,
            "content": content,
            "page": page,
            "referrer_host": host_of(touch.referrer) if touch.referrer else None,
            "click_ids": click_ids,
        }
    )
    return Draft(event, orjson.dumps(personal) if personal else None)


def conversion_fact(
    conversion: ConversionInput, lead_id: LeadId, received_at: datetime, origin: str = API
) -> ConversionRecorded:
    """A conversion as a fact, named by its origin and external id."""
    return ConversionRecorded(
        event_id=EventId(derived_id("conversion", origin, conversion.external_id, _digest(lead_id, conversion))),
        lead_id=lead_id,
        occurred_at=conversion.occurred_at or received_at,
        received_at=received_at,
        origin=origin,
        conversion_id=conversion_id_of(origin, conversion.external_id),
        external_id=conversion.external_id,
        type=conversion.type,
        value_minor=conversion.value_minor,
        currency=conversion.currency,
    )


def refund_fact(refund: RefundInput, received_at: datetime, origin: str = API) -> RefundRecorded:
    """A refund as a fact, named by its conversion and refund id."""
    origin = refund.source or origin
    key = (origin, refund.external_id, refund.refund_id)
    return RefundRecorded(
        event_id=EventId(derived_id("refund", *key, _digest(LeadId(""), refund))),
        occurred_at=refund.occurred_at or received_at,
        received_at=received_at,
        origin=origin,
        conversion_id=conversion_id_of(origin, refund.external_id),
        external_id=refund.external_id,
        refund_id=refund.refund_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )


def cost_fact(cost: CostInput, received_at: datetime, origin: str = API) -> CostRecorded:
    """A cost as a fact.

    Its id is random: a cost may go back to what it was before, and saying the same twice changes nothing anyway.
    """
    return CostRecorded(
        event_id=EventId(new_id()),
        occurred_at=datetime(cost.date.year, cost.date.month, cost.date.day, tzinfo=UTC),
        received_at=received_at,
        origin=origin,
        date=cost.date,
        channel=cost.channel,
        campaign=cost.campaign,
        amount_minor=cost.amount_minor,
        currency=cost.currency,
    )


def conversion_id_of(origin: str, external_id: str) -> ConversionId:
    """The id of a conversion, from the name its origin gives it."""
    return ConversionId(derived_id("conversion", origin, external_id))


@lru_cache(maxsize=4_096)
def tracking_in(query: str) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """The source, medium, campaign and content in a query, and the names of its click ids."""
    told: list[str | None] = [None, None, None, None]
    clicked: set[str] = set()
    for part in query.split("&", _MOST_PARTS):
        name, _, value = part.partition("=")
        place = _PLACES.get(name.lower())
        if place is None or not value:
            continue
        if place == _CLICKED:
            clicked.add(name.lower())
        elif told[place] is None:
            told[place] = _unquoted(value)
    return tuple(told), tuple(sorted(clicked))


def _unquoted(value: str) -> str | None:
    if "%" in value or "+" in value:
        value = unquote_plus(value).replace("\x00", "")
    return value[:_LONGEST] or None


@lru_cache(maxsize=4_096)
def host_of(address: str) -> str | None:
    """The host in an address, in lower case, without credentials and port."""
    _, separator, rest = address.partition("//")
    if not separator:
        return None
    for end in "/?#\\":
        rest = rest.partition(end)[0]
    host = rest.rpartition("@")[2]
    host = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return host.lower() or None


def _digest(lead_id: str, content: TouchFields | ConversionInput | RefundInput) -> str:
    """What tells a correction from a duplicate: everything that was said, and about whom."""
    said = orjson.dumps([lead_id, content.__dict__], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(said).hexdigest()
