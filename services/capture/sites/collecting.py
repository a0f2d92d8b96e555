"""What a page sends, as facts: checked, put on our clock, appended. Nothing is looked up about anybody."""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.capture.errors import ForeignOrigin
from services.capture.facts.api import Who, body_of_request
from services.capture.facts.batches import ACCEPTED, JSON, answer, make_each, refuse_if_all_bad
from services.capture.facts.domain import encode_touch
from services.capture.facts.inputs import TouchFields
from services.capture.forgotten import Forgotten
from services.capture.reading import may_hold_bad_text, text_faults
from services.capture.settings import CaptureSettings
from services.capture.sites.domain import allows, is_robot, occurred, properties_of, referrer_of, visit_of
from services.capture.sites.inputs import SiteBatch, SiteEvent, Traits
from services.capture.sites.queries import SiteRow
from services.capture.visitors import Allowance
from shared.errors import FieldError, Invalid, Malformed, Rejected, TooLarge
from shared.events import VisitorIdentified
from shared.ids import EventId, LeadId, derived_id
from shared.personal import Draft, Encoded, PersonErased
from shared.service import Runtime
from shared.telemetry import counter
from shared.web import address_of, faults_of, invalid

BATCHES = counter("throughline_site_batches_total", "What pages sent, by what was answered", ["outcome"])
LARGEST = 65_536  # a beacon has no more
IDENTIFY = "identify"
NOTHING = Response(b'{"accepted":0,"rejected":[]}', ACCEPTED, media_type=JSON)


def cross_origin(origins: Sequence[str], request: Request) -> dict[str, str]:
    """The headers that let a page of one of these origins read the answer."""
    origin = request.headers.get("origin")
    if origin is None or not allows(origins, origin):
        return {"Vary": "Origin"}
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "content-type",
        "Access-Control-Expose-Headers": "retry-after",
        "Access-Control-Max-Age": "86400",
    }


class Collector:
    """Takes batches of events. One at a time costs no more than a touch: no lookup, one append."""

    def __init__(self, runtime: Runtime, forgotten: Forgotten, settings: CaptureSettings) -> None:
        self._runtime = runtime
        self._forgotten = forgotten
        self._who = Who(runtime, forgotten)
        self._proxies = settings.proxies
        self._allowance = Allowance(at_once=settings.site_requests_at_once, a_second=settings.site_requests_a_second)

    async def take(self, request: Request, site: SiteRow) -> Response:
        """Keep a batch. Raises ForeignOrigin, QuotaExceeded, TooLarge, Malformed, Invalid, Unavailable."""
        origin = request.headers.get("origin")
        if origin is not None and not allows(site.origins, origin):
            BATCHES.labels("foreign").inc()
            raise ForeignOrigin("the site does not have this origin; add it with PATCH /capture/v1/sites")
        self._allowance.spend(site.site_id, address_of(request, self._proxies), time.monotonic())
        if is_robot(request.headers.get("user-agent")):
            BATCHES.labels("robot").inc()
            return NOTHING
        body = await body_of_request(request)
        if len(body) > LARGEST:
            raise TooLarge(f"a batch has at most {LARGEST} bytes; send less at once")
        risky = may_hold_bad_text(body)
        batch = _batch_in(body, risky=risky)
        read = [_event_in(item, f"/events/{index}", risky=risky) for index, item in enumerate(batch.events)]
        await self._forgotten.ready()
        try:
            response = await self._keep(read, batch.sent_at, site.site_id)
        except PersonErased:
            await self._forgotten.look_again()  # another process erased somebody a moment ago
            response = await self._keep(read, batch.sent_at, site.site_id)
        BATCHES.labels("kept").inc()
        return response

    async def _keep(self, read: Sequence[SiteEvent | Rejected], sent_at: int | None, site_id: str) -> Response:
        now = self._runtime.clock.now()

        def make(event: SiteEvent, place: str) -> Draft | Encoded:
            at = occurred(event.at, sent_at, now)
            if event.type == IDENTIFY:
                return self._identified(event, site_id, at, now, place)
            return self._touch(event, site_id, at, now)

        made = make_each(read, make, "/events")
        refuse_if_all_bad(made)
        await self._runtime.log.append([draft for draft in made if not isinstance(draft, Rejected)])
        return answer(made)

    def _touch(self, event: SiteEvent, site_id: str, at: datetime, now: datetime) -> Encoded:
        visit = visit_of(event.url, event.session.url)
        touch = TouchFields.model_construct(
            touch_id=derived_id("site-event", site_id, event.anonymous_id, event.id),
            type=event.type,
            channel=None,
            source=visit.source,
            medium=visit.medium,
            campaign=visit.campaign,
            content=visit.content,
            url=event.url,
            referrer=referrer_of(event.url, event.referrer, event.session.referrer),
            occurred_at=None,  # the moment is reckoned anew when an event is sent again, and is no part of its name
            properties=properties_of(event.properties, event.title, event.anonymous_id, event.session.number),
        )
        return encode_touch(
            touch,
            lead_id=self._who.browser(event.anonymous_id),
            occurred_at=at,
            received_at=now,
            origin=site_id,
            anonymous_id=event.anonymous_id,
            click_ids=visit.click_ids,
        )

    def _identified(self, event: SiteEvent, site_id: str, at: datetime, now: datetime, place: str) -> Draft:
        try:
            Traits.model_validate(event.properties)
        except ValidationError as exc:
            raise invalid(exc, f"{place}/properties") from exc
        browser: LeadId = self._who.browser(event.anonymous_id)
        fact = VisitorIdentified(
            event_id=EventId(derived_id("site-identified", site_id, event.anonymous_id, event.id)),
            lead_id=browser,
            occurred_at=at,
            received_at=now,
            origin=site_id,
        )
        told = {"anonymous_id": event.anonymous_id, "traits": event.properties}
        return Draft(fact, orjson.dumps(told))


def _batch_in(body: bytes, *, risky: bool) -> SiteBatch:
    """What was sent; only the slower reader says which event holds text that cannot be kept."""
    try:
        content = json.loads(body) if risky else orjson.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")]) from exc
    try:
        return SiteBatch.model_validate(content)
    except ValidationError as exc:
        raise invalid(exc) from exc


def _event_in(item: dict[str, Any], place: str, *, risky: bool) -> SiteEvent | Rejected:
    if risky and (faults := list(text_faults(item, place))):
        return Invalid(f"look at {faults[0].pointer}", faults[:100])
    try:
        return SiteEvent.model_validate(item)
    except ValidationError as exc:
        faults = faults_of(exc, place)
        return Invalid(f"look at {faults[0].pointer}", faults)
