"""Deals with all their past, one JSON object a line: read as they come in, each carried out for itself.

A line is one transaction, so that what was answered stands whatever happens to the rest; the same file again changes
nothing. History opens no hand-off and asks for nothing that a stage would ask for today; a deal that it shows not to be
won takes its hand-off back.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from services.routing.deals import queries
from services.routing.deals.changes import Stages, Written, new_entries, opening_of, past_entries
from services.routing.deals.domain import Deal, deal_id_of, opened_deal
from services.routing.deals.handlers import deal_by_id, rep_of, stages_of
from services.routing.deals.inputs import PastDeal
from services.routing.deals.pipeline import DEFAULT_ID
from services.routing.deals.renewals import follow_contract
from services.routing.deals.saving import opening_outcome, outcome_of, save
from services.routing.deals.story import Change, Entry
from services.routing.handoffs.handlers import follow
from services.routing.parts import Parts
from services.routing.people.queries import is_known
from shared.db import Connection, Tx, agreed_now
from shared.emails import parse_email
from shared.errors import FieldError, Invalid, Malformed, Rejected, TooLarge
from shared.identity import find_by_email, resolve
from shared.ids import LeadId
from shared.web import Endpoints, Principal, faults_of, requires

BODY_LIMIT = 200_000_000
LINE_LIMIT = 1_000_000
MOST_LINES = 100_000
NDJSON = "application/x-ndjson"
What = Literal["created", "updated", "unchanged", "rejected"]


class Fault(BaseModel):
    """What is wrong with a line, and where."""

    pointer: str
    detail: str


class LineOut(BaseModel):
    """What became of one line."""

    line: int
    status: What
    external_id: str | None = None
    deal_id: str | None = None
    errors: list[Fault] = []


class Total(BaseModel):
    """The last line of the answer: how many lines came to what."""

    lines: int
    created: int
    updated: int
    unchanged: int
    rejected: int


def router(parts: Parts) -> APIRouter:
    """The import of deals."""
    routes = Endpoints(prefix="/v1", tags=["deals"])

    @routes.post(
        "/deals:import",
        response_class=Response,
        responses={200: {"content": {NDJSON: {}}}},
        openapi_extra={"requestBody": {"required": True, "content": {NDJSON: {"schema": {"type": "string"}}}}},
    )
    async def import_deals(
        request: Request, principal: Annotated[Principal, Depends(requires("routing:write"))]
    ) -> Response:
        """Import deals with their past, one JSON object a line. Answers a result a line, and a total.

        A line has what a new deal has, with `external_id`, `occurred_at`, `lead_id` or `email`, and `changes`: each
        with its `occurred_at` and what it changed: `stage`, `won`, `lost` with `lost_reason`, `reopened` with `stage`.
        Lines are carried out as they arrive, so that one told once stands though the connection breaks.
        """
        request.scope["body_limit"] = BODY_LIMIT
        importing = Importing(parts, principal.subject)
        results: list[bytes] = []
        counts: Counter[str] = Counter()
        async for number, line in _lines(request):
            if number > MOST_LINES:
                raise TooLarge(f"one call takes {MOST_LINES} lines; those up to here are imported, send the rest")
            result = await _import_line(importing, number, line)
            counts[result.status] += 1
            results.append(result.model_dump_json(exclude_defaults=True).encode())
        total = Total(lines=len(results), **{name: counts[name] for name in Total.model_fields if name != "lines"})
        return Response(b"\n".join([*results, total.model_dump_json().encode(), b""]), media_type=NDJSON)

    return routes


async def _lines(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a body that say something, with their numbers, one after the other."""
    number, rest = 0, b""
    try:
        async for piece in request.stream():
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > LINE_LIMIT:
                raise TooLarge(f"line {number + len(whole) + 1} is over {LINE_LIMIT} bytes")
            for line in whole:
                number += 1
                if line.strip():
                    yield number, line
    except ClientDisconnect as exc:
        raise Malformed("the connection was closed before the end of the lines") from exc
    if rest.strip():
        yield number + 1, rest


@dataclass(frozen=True, slots=True)
class Importing:
    """One import: who tells it, and the pipelines as they are while it runs."""

    parts: Parts
    by: str
    known: dict[str, Stages] = field(default_factory=dict)

    async def stages(self, connection: Connection, pipeline_id: str) -> Stages:
        """A pipeline, looked at once. Raises Invalid."""
        if pipeline_id not in self.known:
            self.known[pipeline_id] = await stages_of(connection, self.parts, pipeline_id)
        return self.known[pipeline_id]


async def _import_line(importing: Importing, number: int, line: bytes) -> LineOut:
    external_id: str | None = None
    try:
        written = orjson.loads(line)
        if isinstance(written, dict) and isinstance(written.get("external_id"), str):
            external_id = written["external_id"][:200]
        told = PastDeal.model_validate(written)
        async with importing.parts.runtime.database.transaction() as tx:
            deal, what = await import_deal(tx, importing, told)
        return LineOut(line=number, status=what, external_id=told.external_id, deal_id=deal.deal_id)
    except orjson.JSONDecodeError:
        faults = [Fault(pointer="", detail="is not valid JSON")]
    except ValidationError as exc:
        faults = [Fault(pointer=fault.pointer, detail=fault.detail) for fault in faults_of(exc)]
    except Rejected as exc:
        faults = [Fault(pointer=fault.pointer, detail=fault.detail) for fault in exc.errors]
        faults = faults or [Fault(pointer="", detail=exc.detail)]
    return LineOut(line=number, status="rejected", external_id=external_id, errors=faults)


async def import_deal(tx: Tx, importing: Importing, told: PastDeal) -> tuple[Deal, What]:
    """A deal with its past: new, or what is new of it added to what is known. Raises Invalid."""
    connection, parts, by = tx.connection, importing.parts, importing.by
    lead_id = await _lead(connection, parts, told)
    stages = await importing.stages(connection, told.pipeline or DEFAULT_ID)
    rep_id = await rep_of(connection, told)
    for change in told.changes:
        await rep_of(connection, change)
    deal_id = deal_id_of(told.external_id)
    at = await agreed_now(connection, parts.runtime.clock)
    blank = opened_deal(deal_id, told, stages.pipeline, rep_id, at)
    blank = replace(blank, lead_id=lead_id, reason=told.reason)
    past = [opening_of(blank, stages, by), *past_entries(told.changes, stages, 2, by, blank.lines)]
    if await deal_by_id(connection, parts.runtime.keys, deal_id) is None:
        deal = await save(tx, parts, opening_outcome(blank, new_entries(past, (), 1)), stages.pipeline)
        if deal is not None:
            return deal, "created"
    known = await deal_by_id(connection, parts.runtime.keys, deal_id, locked=True)
    assert known is not None  # it was there, or somebody was faster
    if (await resolve(connection, known.lead_id), known.currency) != (
        await resolve(connection, lead_id),
        told.currency,
    ):
        raise Invalid("look at /external_id", [FieldError("/external_id", "is a deal's with another lead or currency")])
    return await _add_past(tx, parts, told, known, past, stages)


async def _add_past(  # noqa: PLR0913  # what a line is put together from
    tx: Tx, parts: Parts, told: PastDeal, known: Deal, past: Sequence[Entry], stages: Stages
) -> tuple[Deal, What]:
    """Add to a known deal what is new of its past; of texts those told last count."""
    entries = await queries.entries(tx.connection, known)
    fresh = new_entries(past, entries, known.revision + 1)
    notes = dict(known.notes) | (told.notes.model_dump(exclude_none=True) if told.notes is not None else {})
    written = Written(told.name, told.reason or known.reason, notes)
    if (written.name, written.reason, written.notes) != (known.name, known.reason, known.notes):
        change = Change(texts=("name", "reason", "notes"))
        fresh.append(Entry(known.revision + 1 + len(fresh), known.changed_at, change, past[0].by))
    if not fresh:
        return known, "unchanged"
    deal = await save(tx, parts, outcome_of(known, entries, fresh, written), stages.pipeline)
    assert deal is not None  # it was there before
    if known.status == "won":
        await follow(tx, parts, known, deal)
        await follow_contract(tx, parts, known, deal)
    return deal, "updated"


async def _lead(connection: Connection, parts: Parts, told: PastDeal) -> LeadId:
    """The lead that a line names. Raises Invalid for one that is not known here."""
    if told.email is not None:
        email = parse_email(told.email)
        if email is None:
            raise Invalid("look at /email", [FieldError("/email", "is not an email address")])
        lead_id, pointer = await find_by_email(connection, parts.runtime.ids, email), "/email"
    else:
        lead_id, pointer = told.lead, "/lead_id"
    if not await is_known(connection, [lead_id]):
        raise Invalid(f"look at {pointer}", [FieldError(pointer, "names no lead that is known here")])
    return lead_id
