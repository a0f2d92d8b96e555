"""Queues and their books over HTTP."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.routing.errors import NoSuchQueue
from services.routing.fairness import queries
from services.routing.fairness.domain import LEAD, Books, Entry, added
from services.routing.fairness.members import Member, joining, members_of, named, rule_ids
from services.routing.params import PathId, QueryId
from services.routing.parts import Parts
from services.routing.reps.queries import active_reps, reps_of
from services.routing.rules.domain import Queue, Rules
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import RepId
from shared.web import Endpoints, Input, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires

NEWEST = 2**63 - 1
PLACES = 6
"""Places behind the point of a number of leads; the exact number is beside it in units."""


class MemberOut(BaseModel):
    """A rep in a queue. `why_not` says why no lead could be given to them now; `balance` is what they are owed."""

    rep_id: str
    name: str
    weight: int
    present: bool
    why_not: str | None
    open_leads: int
    capacity: int | None
    last_assigned_at: datetime | None
    balance: float

    @classmethod
    def of(cls, member: Member) -> "MemberOut":
        """From the member as found."""
        rep, account = member.rep, member.account
        return cls(
            rep_id=rep.rep_id,
            name=rep.name,
            weight=member.weight,
            present=member.why_not is None,
            why_not=member.why_not,
            open_leads=rep.open_leads,
            capacity=rep.capacity,
            last_assigned_at=rep.last_assigned_at,
            balance=_leads(account.balance if account is not None else 0),
        )


class QueueOut(BaseModel):
    """Reps who share leads, the rules that give it some, and the leads its members hold, by whatever rule."""

    queue_id: str
    rules: list[str]
    who: str | None
    monthly: bool
    catch_up_capacity: bool
    open_leads: int
    members: list[MemberOut]


class StandingOut(BaseModel):
    """What a member is entitled to and received since then, in leads; `balance` is the one minus the other.

    `balance_units` is the same exactly, in units of which `units_per_lead` are a lead: the sum of all their entries.
    """

    rep_id: str
    name: str
    weight: int
    present: bool
    why_not: str | None
    entitled: float
    received: int
    balance: float
    balance_units: int
    entries: int
    since: datetime | None

    @classmethod
    def of(cls, member: Member) -> "StandingOut":
        """From the member as found."""
        account = member.account
        balance, received = (account.balance, account.received) if account is not None else (0, 0)
        return cls(
            rep_id=member.rep.rep_id,
            name=member.rep.name,
            weight=member.weight,
            present=member.why_not is None,
            why_not=member.why_not,
            entitled=_leads(balance + received * LEAD),
            received=received,
            balance=_leads(balance),
            balance_units=balance,
            entries=account.entries if account is not None else 0,
            since=account.since if account is not None else None,
        )


class DeviationOut(BaseModel):
    """Who of those present is furthest from what they are entitled to, by so many leads: above nought is owed."""

    rep_id: str
    leads: float


class FairnessOut(BaseModel):
    """The books of a queue as they stand."""

    queue_id: str
    units_per_lead: int
    members: list[StandingOut]
    greatest_deviation: DeviationOut | None


class EntryOut(BaseModel):
    """A line of the books: what it added to the balance of `rep_id`, in leads and exactly in `units`.

    A turn is a line of everybody who was in it: `received` of the rep who got the lead, `earned` of the others.
    """

    number: int
    at: datetime
    kind: str
    rep_id: str
    leads: float
    units: int
    why: str
    by: str | None
    assignment_id: str | None
    lead_id: str | None

    @classmethod
    def of(cls, line: queries.Line, rep_id: str | None) -> "EntryOut":
        """As a line of this rep, else of the entry's own."""
        entry = line.entry
        whose = RepId(rep_id or entry.rep_id)
        units = added(entry).get(whose, 0)
        kind, why = _named(entry, whose)
        return cls(
            number=line.number,
            at=entry.at,
            kind=kind,
            rep_id=whose,
            leads=_leads(units),
            units=units,
            why=why,
            by=entry.actor,
            assignment_id=entry.assignment_id,
            lead_id=entry.lead_id,
        )


Leads = Annotated[Decimal, Field(ge=-1_000, le=1_000, decimal_places=3, examples=[1])]


class AdjustIn(Input):
    """How many leads a member is owed more (below nought: less), to a thousandth, and why."""

    rep_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    leads: Leads
    reason: Annotated[str, Field(min_length=1, max_length=500)]


def router(parts: Parts) -> APIRouter:
    """Queues, and what each member is owed."""
    routes = Endpoints(prefix="/v1/queues", tags=["queues"])
    _add_reading(routes, parts)
    _add_adjusting(routes, parts)
    return routes


def _add_reading(routes: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    reading = [Depends(requires("routing:read"))]

    @routes.get("", dependencies=reading)
    async def list_queues(limit: Limit = 50, cursor: str | None = None) -> Page[QueueOut]:
        """The queues of the active rules with their members, in the order of the document."""
        after = read_cursor(runtime.secrets, "queues", cursor)
        async with runtime.database.reading() as connection:
            rules = await parts.rules.current(connection)
            ids = list(rules.queues)
            start = ids.index(after) + 1 if after in ids else 0
            shown = list(rules.queues.values())[start : start + limit]
            now = await agreed_now(connection, runtime.clock)
            items = [await _queue_out(connection, rules, queue, now) for queue in shown]
        more = start + limit < len(ids)
        return Page(
            items=items,
            next_cursor=make_cursor(runtime.secrets, "queues", items[-1].queue_id) if more else None,
        )

    @routes.get("/{queue_id}", dependencies=reading)
    async def get_queue(queue_id: PathId) -> QueueOut:
        """One queue of the active rules."""
        async with runtime.database.reading() as connection:
            rules = await parts.rules.current(connection)
            queue = rules.queues.get(queue_id)
            if queue is None:
                raise _no_such_queue(queue_id)
            return await _queue_out(connection, rules, queue, await agreed_now(connection, runtime.clock))

    @routes.get("/{queue_id}/fairness", dependencies=reading)
    async def get_fairness(queue_id: PathId) -> FairnessOut:
        """What each member of a queue is entitled to, received, and is owed."""
        async with runtime.database.reading() as connection:
            members = await _members(connection, parts, queue_id)
        standings = [StandingOut.of(member) for member in members]
        furthest = max((one for one in standings if one.present), key=lambda one: abs(one.balance_units), default=None)
        deviation = None if furthest is None else DeviationOut(rep_id=furthest.rep_id, leads=furthest.balance)
        return FairnessOut(
            queue_id=queue_id,
            units_per_lead=LEAD,
            members=standings,
            greatest_deviation=deviation,
        )

    @routes.get("/{queue_id}/fairness/entries", dependencies=reading)
    async def list_entries(
        queue_id: PathId, rep_id: QueryId = None, limit: Limit = 50, cursor: str | None = None
    ) -> Page[EntryOut]:
        """The entries of a queue, the newest first; of one rep also the shares they earned of others' leads."""
        before = read_cursor(runtime.secrets, "fairness-entries", cursor) or NEWEST
        async with runtime.database.reading() as connection:
            await _members(connection, parts, queue_id)
            found = await queries.lines_before(connection, queue_id, before, rep_id, limit + 1)
        return Page(
            items=[EntryOut.of(line, rep_id) for line in found[:limit]],
            next_cursor=make_cursor(runtime.secrets, "fairness-entries", found[limit - 1].number)
            if len(found) > limit
            else None,
        )


def _add_adjusting(routes: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    may_change = requires("routing:write")

    @routes.post("/{queue_id}/fairness:adjust", status_code=201, response_model=EntryOut)
    async def adjust(
        queue_id: PathId, told: AdjustIn, request: Request, principal: Annotated[Principal, Depends(may_change)]
    ) -> Response:
        """Set right by hand what a member is owed. Answers the entry that says so."""
        units = int(told.leads * LEAD)
        if units == 0:
            raise Invalid("look at /leads", [FieldError("/leads", "0 leads change nothing")])

        async def make(tx: Tx) -> Response:
            await queries.lock_dispatcher(tx.connection)
            members = await _members(tx.connection, parts, queue_id)
            if told.rep_id not in {member.rep.rep_id for member in members}:
                detail = f"is no member of {queue_id}; its members are listed at GET /routing/v1/queues/{queue_id}"
                raise Invalid("look at /rep_id", [FieldError("/rep_id", detail)])
            at = await agreed_now(tx.connection, runtime.clock)
            entry = Entry("adjusted", RepId(told.rep_id), at, units, told.reason, actor=principal.subject)
            first = joining(members, at) if all(member.account is None for member in members) else []
            number = await queries.write_apart(tx.connection, queue_id, [*first, entry])
            await queries.audit(tx.connection, principal.subject, queue_id, told.model_dump(mode="json"))
            shown = EntryOut.of(queries.Line(number, queue_id, entry), None)
            return Response(shown.model_dump_json(), 201, media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)


async def _queue_out(connection: Connection, rules: Rules, queue: Queue, at: datetime) -> QueueOut:
    books = await queries.books_of(connection, queue.queue_id)
    members = await _found(connection, queue, books, at)
    return QueueOut(
        queue_id=queue.queue_id,
        rules=rule_ids(rules, queue),
        who=queue.who.source if queue.who is not None else None,
        monthly=queue.monthly,
        catch_up_capacity=queue.makes_up_limits,
        open_leads=sum(member.rep.open_leads for member in members),
        members=[MemberOut.of(member) for member in members],
    )


async def _members(connection: Connection, parts: Parts, queue_id: str) -> list[Member]:
    """The members of a queue that the rules have now, or had. Raises NoSuchQueue."""
    queue = (await parts.rules.current(connection)).queues.get(queue_id)
    books = await queries.books_of(connection, queue_id)
    if queue is None and not books:
        raise _no_such_queue(queue_id)
    return await _found(connection, queue, books, await agreed_now(connection, parts.runtime.clock))


async def _found(connection: Connection, queue: Queue | None, books: Books, at: datetime) -> list[Member]:
    active = await active_reps(connection)
    others = await reps_of(connection, sorted({*named(queue), *books} - {rep.rep_id for rep in active}))
    return members_of(queue, (*active, *others.values()), books, at)


def _no_such_queue(queue_id: str) -> NoSuchQueue:
    return NoSuchQueue(f"there is no queue {queue_id[:100]}; GET /routing/v1/queues lists those of the active rules")


def _named(entry: Entry, whose: RepId) -> tuple[str, str]:
    """Kind and reason of an entry as a line of one rep."""
    if entry.kind != "turn":
        return entry.kind, entry.why
    among = f"a lead shared out among {len(entry.weights)}"
    return ("received", among) if whose == entry.rep_id else ("earned", f"{among}, given to {entry.rep_id}")


def _leads(units: int) -> float:
    return round(units / LEAD, PLACES)
