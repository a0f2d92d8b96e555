"""Touches and money over HTTP: validated, appended, answered after the commit. Touches are the hot path."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.capture.facts.batches import ACCEPTED, JSON, Accepted, BatchReader, answer, make_each, refuse_if_all_bad
from services.capture.facts.domain import conversion_fact, cost_fact, encode_touch, refund_fact
from services.capture.facts.inputs import (
    ConversionInput,
    CostBatch,
    CostInput,
    RefundInput,
    TouchBatch,
    TouchInput,
    latest_allowed,
)
from services.capture.facts.links import ToldLinks
from services.capture.forgotten import Forgotten
from services.capture.leads.telling import identity_linked
from services.capture.reading import read_body
from shared.db import Tx
from shared.emails import parse_email
from shared.errors import FieldError, Invalid, Malformed, Rejected
from shared.events import Event, IdentityLinked
from shared.ids import ConversionId, LeadId
from shared.personal import Draft, Encoded, PersonErased
from shared.service import Runtime
from shared.web import DirectRoute, Endpoints, authorise, described_body, idempotent

ONE_ACCEPTED = Response(b'{"accepted":1,"rejected":[]}', ACCEPTED, media_type=JSON)
SCOPE = "capture:write"
IDEMPOTENCY_KEY = b"idempotency-key"


async def body_of_request(request: Request) -> bytes:
    """The whole body; nearly always it comes in one piece."""
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message.get("body", b""))
    pieces = [message.get("body", b"")]
    while message.get("more_body"):
        message = await request.receive()
        pieces.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise Malformed("the connection was closed before the end of the body")
    return b"".join(pieces)


class ConversionAccepted(BaseModel):
    """The id of the conversion; the same for the same external id."""

    conversion_id: ConversionId


class Who:
    """Whose a fact is, from what the caller names, without asking the database."""

    def __init__(self, runtime: Runtime, forgotten: Forgotten) -> None:
        self._ids = runtime.ids
        self._forgotten = forgotten
        self._of_email = lru_cache(maxsize=20_000)(self._ids.of_email)
        self._of_anonymous_id = lru_cache(maxsize=20_000)(self._ids.of_anonymous_id)

    def named(self, lead_id: str | None, email: str | None, anonymous_id: str | None, place: str) -> LeadId:
        """The lead id that a fact is kept under: the given one, else that of the email, else that of the browser.

        Raises Invalid without any, or for an email that is none; PersonErased for the id of an erased person.
        """
        if lead_id is not None:
            given = LeadId(lead_id.lower())
            if given in self._forgotten:
                raise PersonErased(f"the person behind lead {given} was erased; send the identifiers again")
            return given
        if email is not None:
            parsed = parse_email(email)
            if parsed is None:
                raise Invalid(f"look at {place}/email", [FieldError(f"{place}/email", "not an email address")])
            found = self._of_email(parsed)
            if found in self._forgotten:
                found = self._forgotten.living(lambda generation: self._ids.of_email(parsed, generation))
            return found
        if anonymous_id is not None:
            return self.browser(anonymous_id)
        detail = "one of lead_id, email and anonymous_id is required"
        raise Invalid(detail, [FieldError(f"{place}/lead_id", detail)])

    def browser(self, anonymous_id: str) -> LeadId:
        """The lead id of a browser."""
        found = self._of_anonymous_id(anonymous_id)
        if found in self._forgotten:
            found = self._forgotten.living(lambda generation: self._ids.of_anonymous_id(anonymous_id, generation))
        return found


def facts_router(runtime: Runtime, forgotten: Forgotten) -> APIRouter:
    """The endpoints that take facts."""
    router = Endpoints(tags=["facts"], route_class=DirectRoute)
    who = Who(runtime, forgotten)
    links = ToldLinks()
    touch_reader = BatchReader("touches", TouchInput, TouchBatch, alone=True)
    cost_reader = BatchReader("costs", CostInput, CostBatch, alone=False)

    @router.post(
        "/v1/touches",
        status_code=ACCEPTED,
        openapi_extra=described_body(TouchInput, TouchBatch),
        responses={ACCEPTED: {"model": Accepted}},
    )
    async def record_touches(request: Request) -> Response:
        """Keep a touch, or up to 1,000. Of a batch the good ones are kept, and the others named."""
        await authorise(request, SCOPE)
        body = await body_of_request(request)
        await forgotten.ready()
        items, in_batch = touch_reader.read(body)
        try:
            return await _record(items, in_batch, request, body)
        except PersonErased:
            await forgotten.look_again()  # another process erased somebody a moment ago
            return await _record(items, in_batch, request, body)

    async def _record(
        items: Sequence[TouchInput | Rejected], in_batch: bool, request: Request, body: bytes
    ) -> Response:
        now = runtime.clock.now()
        latest = latest_allowed(now)

        def make(touch: TouchInput, place: str) -> list[Draft | Encoded]:
            return _drafts_of(touch, place, now, latest)

        made = make_each(items, make, "/touches" if in_batch else "")
        refuse_if_all_bad(made)
        drafts = [draft for item in made if not isinstance(item, Rejected) for draft in item]
        response = answer(made) if in_batch else ONE_ACCEPTED
        kept = await _keep(drafts, response, request, body)
        for draft in drafts:
            if isinstance(draft, Draft) and isinstance(draft.event, IdentityLinked):
                links.was_told(draft.event.anonymous_lead_id, draft.event.lead_id, draft.event.occurred_at)
        return kept

    def _drafts_of(touch: TouchInput, place: str, now: datetime, latest: datetime) -> list[Draft | Encoded]:
        lead_id = who.named(touch.lead_id, touch.email, touch.anonymous_id, place)
        at = touch.occurred_at
        if at is None:
            at = now
        elif at > latest:
            pointer = f"{place}/occurred_at"
            raise Invalid(f"look at {pointer}", [FieldError(pointer, "lies more than a day in the future")])
        if touch.automated_reason is not None and (touch.internal or not touch.automated):
            pointer = f"{place}/automated_reason"
            raise Invalid(
                f"look at {pointer}",
                [FieldError(pointer, "says why automated is true; without that, and with internal, leave it out")],
            )
        drafts: list[Draft | Encoded] = [
            encode_touch(touch, lead_id=lead_id, occurred_at=at, received_at=now, anonymous_id=touch.anonymous_id)
        ]
        if touch.anonymous_id is not None and (touch.email is not None or touch.lead_id is not None):
            browser = who.browser(touch.anonymous_id)
            if browser != lead_id and links.is_news(browser, lead_id, at):
                drafts.append(Draft(identity_linked(browser, lead_id, at, now)))
        return drafts

    @router.post(
        "/v1/conversions",
        status_code=ACCEPTED,
        openapi_extra=described_body(ConversionInput),
        responses={ACCEPTED: {"model": ConversionAccepted}},
    )
    async def record_conversion(request: Request) -> Response:
        """Keep a conversion. The same external id again corrects it, and the one received last wins.

        What was said once before is a duplicate, and changes nothing: send an Idempotency-Key, each time another, to go
        back to what was said earlier.
        """
        await authorise(request, SCOPE)
        body = await body_of_request(request)
        conversion = read_body(ConversionInput, body)
        await forgotten.ready()
        given = conversion.lead_id  # also that of somebody erased: credit stays, and nothing in it is personal
        lead_id = LeadId(given.lower()) if given else who.named(None, conversion.email, conversion.anonymous_id, "")
        fact = conversion_fact(conversion, lead_id, runtime.clock.now(), said=_saying(request))
        out = ConversionAccepted(conversion_id=fact.conversion_id)
        return await _keep([Draft(fact)], _accepted(out), request, body)

    @router.post("/v1/refunds", status_code=ACCEPTED, openapi_extra=described_body(RefundInput))
    async def record_refund(request: Request) -> Response:
        """Keep a refund; it lowers its conversion's value, never below zero. It may come before the conversion.

        The same refund id again corrects it, as a conversion is corrected.
        """
        await authorise(request, SCOPE)
        body = await body_of_request(request)
        fact = refund_fact(read_body(RefundInput, body), runtime.clock.now(), said=_saying(request))
        return await _keep(
            [Draft(fact)], _accepted(ConversionAccepted(conversion_id=fact.conversion_id)), request, body
        )

    @router.post(
        "/v1/costs",
        status_code=ACCEPTED,
        openapi_extra=described_body(CostBatch),
        responses={ACCEPTED: {"model": Accepted}},
    )
    async def record_costs(request: Request) -> Response:
        """Keep what channels and campaigns cost on a day, in place of what was said before."""
        await authorise(request, SCOPE)
        body = await body_of_request(request)
        items, _ = cost_reader.read(body)
        now = runtime.clock.now()
        latest = latest_allowed(now).date()

        def make(cost: CostInput, place: str) -> Event:
            if cost.date > latest:
                detail = "lies more than a day in the future"
                raise Invalid(f"look at {place}/date", [FieldError(f"{place}/date", detail)])
            return cost_fact(cost, now)

        made = make_each(items, make, "/costs")
        refuse_if_all_bad(made)
        drafts = [Draft(item) for item in made if not isinstance(item, Rejected)]
        return await _keep(drafts, answer(made), request, body)

    async def _keep(drafts: Sequence[Draft | Encoded], response: Response, request: Request, body: bytes) -> Response:
        """Append and answer; with an Idempotency-Key in a transaction with the answer."""
        if _saying(request) is None:
            await runtime.log.append(drafts)
            return response

        async def make(tx: Tx) -> Response:
            await runtime.keys.emit_drafts(tx, drafts)
            return response

        return await idempotent(runtime.database, request, body, make)

    return router


def _saying(request: Request) -> str | None:
    """What tells a request from others that say the same; its retries are answered by the same key."""
    return next((key.decode("latin-1") for name, key in request.scope["headers"] if name == IDEMPOTENCY_KEY), None)


def _accepted(out: BaseModel) -> Response:
    return Response(out.model_dump_json(), ACCEPTED, media_type=JSON)
