"""Touches and money as facts: their ids, and what of them may stand in clear."""

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import orjson
from pydantic import BaseModel

from services.capture.adapters.fields import CLICK_IDS
from services.capture.facts.inputs import ConversionInput, CostInput, RefundInput, TouchFields, WithdrawalInput
from shared.events import (
    CALM_TOUCHES,
    INTERNAL,
    ConversionRecorded,
    CostRecorded,
    RefundRecorded,
    TouchRecorded,
    TouchWithdrawn,
)
from shared.ids import ConversionId, EventId, LeadId, TouchId, derived_id, new_id, uuid8
from shared.personal import Encoded

API = "api"
_TRACKING = re.compile("|".join(("utm_", *sorted(CLICK_IDS))), re.IGNORECASE)
_CLICKED = 4
_PLACES = {"utm_source": 0, "utm_medium": 1, "utm_campaign": 2, "utm_content": 3} | dict.fromkeys(CLICK_IDS, _CLICKED)
_MOST_PARTS = 200
_LONGEST = 255
_LONGEST_KEPT = 500


def encode_touch(  # noqa: PLR0913  # what a touch is made of
    touch: TouchFields,
    *,
    lead_id: LeadId,
    occurred_at: datetime,
    received_at: datetime,
    origin: str = API,
    anonymous_id: str | None = None,
    click_ids: tuple[str, ...] = (),
    default_id: str | None = None,
) -> Encoded:
    """A touch as a fact. Without a `touch_id` it is named by `default_id`, without that at random.

    Queries, properties and the anonymous id are personal; they leave only encrypted. This is the hot path: the fact is
    written out at once, as `TouchRecorded.encode` would.
    """
    url, referrer = touch.url, touch.referrer
    visit = visit_at(url) if url else NOWHERE
    seen = _seen(
        touch.channel,
        touch.source or visit.source,
        touch.medium or visit.medium,
        touch.campaign or visit.campaign,
        touch.content or visit.content,
        visit.page,
        host_of(referrer) if referrer else None,
        click_ids or visit.click_ids,
    )
    hidden: dict[str, Any] = {}
    if url and url != visit.page:
        hidden["url"] = url
    if referrer:
        hidden["referrer"] = referrer
    if anonymous_id:
        hidden["anonymous_id"] = anonymous_id
    if touch.properties:
        hidden["properties"] = touch.properties
    personal = orjson.dumps(hidden) if hidden else None
    at = occurred_at.isoformat()
    automated = touch.automated or touch.internal
    reason = INTERNAL if touch.internal else touch.automated_reason
    touch_id = touch.touch_id or default_id
    if touch_id is None:
        touch_id = event_id = new_id()
    else:
        names = [touch_id, at if touch.occurred_at else "", lead_id, origin, touch.type]
        if automated:
            names += ["automated", reason or ""]
        said = b"%s\x1f%s\x1f%s" % ("\x1f".join(names).encode(), seen, personal or b"")
        event_id = uuid8(hashlib.sha256(said).digest())
    told = {
        "event_id": event_id,
        "touch_id": touch_id,
        "occurred_at": at,
        "received_at": received_at,
        "lead_id": lead_id,
        "origin": origin,
        "type": touch.type,
    }
    if automated:
        told["automated"] = True
        if reason:
            told["automated_reason"] = reason
    value = b"%s%s" % (orjson.dumps(told)[:-1], seen)
    calm = touch.type in CALM_TOUCHES
    return Encoded(TouchRecorded, EventId(event_id), lead_id, at, received_at, value, personal, calm)


@lru_cache(maxsize=4_096)
def _seen(  # noqa: PLR0913  # the fields
    channel: str | None,
    source: str | None,
    medium: str | None,
    campaign: str | None,
    content: str | None,
    page: str | None,
    referrer_host: str | None,
    click_ids: tuple[str, ...],
) -> bytes:
    """The rest of a fact's JSON after its first fields: what many touches have in common, written once."""
    seen = {
        "channel": channel,
        "source": source,
        "medium": medium,
        "campaign": campaign,
        "content": content,
        "page": page,
        "referrer_host": referrer_host,
        "click_ids": click_ids,
    }
    written = orjson.dumps({name: value for name, value in seen.items() if value})
    return written.replace(b"{", b",", 1) if len(written) > len(b"{}") else b"}"


def conversion_fact(
    conversion: ConversionInput, lead_id: LeadId, received_at: datetime, origin: str = API, said: str | None = None
) -> ConversionRecorded:
    """A conversion as a fact, named by its origin and external id. `said` tells this saying from others of the same."""
    names = (origin, conversion.external_id)
    return ConversionRecorded(
        event_id=EventId(_content_id("conversion", names, lead_id, conversion, said)),
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


def withdrawal_fact(touch_id: str, withdrawal: WithdrawalInput, received_at: datetime) -> TouchWithdrawn:
    """That a touch counts no more, named by its origin, its id and the reason."""
    origin = withdrawal.source or API
    return TouchWithdrawn(
        event_id=EventId(_content_id("withdrawal", (origin, touch_id), "", withdrawal)),
        occurred_at=received_at,
        received_at=received_at,
        origin=origin,
        touch_id=TouchId(touch_id),
        reason=withdrawal.reason.strip(),
    )


def refund_fact(
    refund: RefundInput, received_at: datetime, origin: str = API, said: str | None = None
) -> RefundRecorded:
    """A refund as a fact, named by its conversion and refund id. `said` tells this saying from others of the same."""
    origin = refund.source or origin
    key = (origin, refund.external_id, refund.refund_id)
    return RefundRecorded(
        event_id=EventId(_content_id("refund", key, "", refund, said)),
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


class Visit(NamedTuple):
    """What the address of a page tells of the visit to it; `page` is free of the query."""

    page: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    click_ids: tuple[str, ...] = ()


NOWHERE = Visit()


def visit_at(url: str) -> Visit:
    """The visit that an address tells of. Most addresses come again and again, and are kept."""
    return _kept_visit(url) if len(url) <= _LONGEST_KEPT else _visit(url)


def _visit(url: str) -> Visit:
    page, _, query = url.partition("#")[0].partition("?")
    if not query or not _TRACKING.search(query):
        return Visit(page)
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
    source, medium, campaign, content = told
    return Visit(page, source, medium, campaign, content, tuple(sorted(clicked)))


_kept_visit = lru_cache(maxsize=4_096)(_visit)


def _unquoted(value: str) -> str | None:
    if "%" in value or "+" in value:
        value = unquote_plus(value).replace("\x00", "")
    return value[:_LONGEST] or None


def host_of(address: str) -> str | None:
    """The host in an address, in lower case, without credentials and port."""
    return _kept_host(address) if len(address) <= _LONGEST_KEPT else _host(address)


def _host(address: str) -> str | None:
    _, separator, rest = address.partition("//")
    if not separator:
        return None
    for end in "/?#\\":
        rest = rest.partition(end)[0]
    host = rest.rpartition("@")[2]
    host = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return host.lower() or None


_kept_host = lru_cache(maxsize=4_096)(_host)


def _content_id(kind: str, names: tuple[str, ...], lead_id: str, content: BaseModel, said: str | None = None) -> str:
    """The id of a fact: the same for everything that was said, and about whom; so a correction gets another."""
    whole = [kind, names, lead_id, content.__dict__, *([] if said is None else [said])]
    return uuid8(hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).digest())
