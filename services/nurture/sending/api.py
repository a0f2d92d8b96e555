"""What was written to a lead, what was not, and why; and where the lead stands in each sequence."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from services.nurture.enrolments import queries as enrolments
from services.nurture.errors import NoSuchLead
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.sending import queries
from services.nurture.sending.queries import Filters
from services.nurture.sending.reconciling import Decision, decide_unknown, decisions_about, message_of
from services.nurture.sending.sealing import opened
from shared.db import Connection
from shared.emails import Email
from shared.events import MessageState
from shared.identity import find_by_email, resolve
from shared.ids import LeadId, MessageId, SequenceId
from shared.rules import NoSuchVersion
from shared.web import Endpoints, Input, Instant, Limit, Page, Principal, make_cursor, read_cursor, requires

END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


class MessageOut(BaseModel):
    """A message as the ledger has it; `reason` says why it stands as it does, `provider` who has it or may have it."""

    message_id: str
    state: str
    reason: str | None
    channel: str
    subject: str | None
    sequence_id: str
    sequence: str
    sequence_version: int
    step_id: str
    variant: str | None
    visit: int
    run: int
    enrolment_id: str
    attempts: int
    provider: str | None
    provider_id: str | None
    planned_at: datetime
    claimed_at: datetime | None
    sent_at: datetime | None
    settled_at: datetime


class DecisionOut(BaseModel):
    """What somebody decided about a message of which nobody knew whether it had left."""

    decision: str
    actor: str
    reason: str
    at: datetime


class ResolvedOut(MessageOut):
    """A message with what people decided about it."""

    decisions: list[DecisionOut]


class ResolveIn(Input):
    """`sent` or `failed` says what became of an unknown message; `resend` has it sent again: it may arrive twice."""

    decision: Decision = Field(alias="as")
    reason: str = Field(min_length=1, max_length=500)


class EnrolmentOut(BaseModel):
    """A run of a sequence: where it stands, or how it ended."""

    enrolment_id: str
    sequence_id: str
    sequence_version: int
    run: int
    state: str
    reason: str | None
    triggered_at: datetime
    started_at: datetime
    ended_at: datetime | None
    next_step_id: str | None
    due_at: datetime | None
    waits_because: str | None
    waits_at: str | None = None
    variants: dict[str, str] = {}


def messages_router(parts: Parts) -> APIRouter:
    """Messages and runs, by lead or by address."""
    router = Endpoints(tags=["messages"], dependencies=[Depends(requires("nurture:read"))])
    runtime = parts.runtime
    by_address = Annotated[Email, Query(description="The lead's address")]

    @router.get("/v1/leads/{lead_id}/messages")
    async def messages_of_lead(lead_id: str, limit: Limit = 50, cursor: str | None = None) -> Page[MessageOut]:
        """All messages to a lead, the newest first."""
        async with runtime.database.reading() as connection:
            return await messages(connection, await resolve(connection, LeadId(lead_id)), limit, cursor)

    @router.get("/v1/messages")
    async def list_messages(  # noqa: PLR0913  # each is a parameter of the query
        email: Annotated[Email | None, Query(description="Only those to the lead with this address")] = None,
        state: Annotated[MessageState | None, Query(description="`unknown`: those that want a look")] = None,
        sequence: Annotated[str | None, Query(description="Only those of this sequence")] = None,
        since: Annotated[Instant | None, Query(description="Only those planned at or after this")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[MessageOut]:
        """Messages, the newest first."""
        filters = Filters(state, sequence, since)
        async with runtime.database.reading() as connection:
            person_id = await find_by_email(connection, runtime.ids, email) if email else None
            return await messages(connection, person_id, limit, cursor, filters)

    @router.get("/v1/messages/{message_id}")
    async def one_message(message_id: str) -> ResolvedOut:
        """A message, and what people decided about it while nobody knew whether it had left."""
        async with runtime.database.reading() as connection:
            return await with_decisions(connection, MessageId(message_id))

    @router.post("/v1/messages/{message_id}:resolve")
    async def resolve_message(
        message_id: str, body: ResolveIn, principal: Annotated[Principal, Depends(requires("nurture:write"))]
    ) -> ResolvedOut:
        """Say what became of an unknown message, or have it sent again."""
        async with runtime.database.transaction() as tx:
            await decide_unknown(tx, MessageId(message_id), body.decision, principal.subject, body.reason)
            return await with_decisions(tx.connection, MessageId(message_id))

    @router.get("/v1/leads/{lead_id}/enrolments")
    async def runs_of_lead(lead_id: str) -> Page[EnrolmentOut]:
        """A lead's runs of sequences, the newest first."""
        async with runtime.database.reading() as connection:
            return await runs(connection, await resolve(connection, LeadId(lead_id)))

    @router.get("/v1/enrolments")
    async def runs_by_address(email: by_address) -> Page[EnrolmentOut]:
        """The runs of the lead with this address, the newest first."""
        async with runtime.database.reading() as connection:
            return await runs(connection, await find_by_email(connection, runtime.ids, email))

    async def messages(
        connection: Connection, person_id: LeadId | None, limit: int, cursor: str | None, filters: Filters = Filters()
    ) -> Page[MessageOut]:
        place = read_cursor(runtime.secrets, "messages", cursor)
        before = (datetime.fromisoformat(place[0]), str(place[1])) if place else (END_OF_TIME, "")
        ids = None if person_id is None else await known_ids(connection, person_id)
        rows = await queries.messages_of(connection, ids, filters, before, limit + 1)
        said = await opened(connection, runtime.keys, rows[:limit])
        items = [await message_out(connection, row, one.subject) for row, one in zip(rows[:limit], said, strict=True)]
        last = rows[limit - 1] if len(rows) > limit else None
        more = (
            make_cursor(runtime.secrets, "messages", [last["created_at"].isoformat(), last["message_id"]])
            if last
            else None
        )
        return Page(items=items, next_cursor=more)

    async def runs(connection: Connection, person_id: LeadId) -> Page[EnrolmentOut]:
        ids = await known_ids(connection, person_id)
        return Page(items=[_run_out(row) for row in await enrolments.listed_runs(connection, ids)])

    async def known_ids(connection: Connection, person_id: LeadId) -> tuple[LeadId, ...]:
        person = await people.load_person(connection, parts.addresses, runtime.keys, person_id)
        if not person.known and not await enrolments.runs_of(connection, person.ids):
            raise NoSuchLead(f"nothing is known of a lead {person_id}")
        return person.ids

    async def with_decisions(connection: Connection, this: MessageId) -> ResolvedOut:
        row = await message_of(connection, this)
        (said,) = await opened(connection, runtime.keys, [row])
        shown = await message_out(connection, row, said.subject)
        decided = [DecisionOut.model_validate(dict(each)) for each in await decisions_about(connection, this)]
        return ResolvedOut(**shown.model_dump(), decisions=decided)

    async def message_out(connection: Connection, row: Any, subject: str | None) -> MessageOut:
        try:
            plan = await parts.catalogue.plan(connection, SequenceId(row["sequence_id"]), row["version"])
            name = plan.name
        except NoSuchVersion:
            name = row["sequence_id"]
        return MessageOut(
            message_id=row["message_id"],
            state=row["state"],
            reason=row["reason"],
            channel=row["channel"],
            subject=subject,
            sequence_id=row["sequence_id"],
            sequence=name,
            sequence_version=row["version"],
            step_id=row["step_id"],
            variant=row["variant"],
            visit=row["visit"],
            run=row["run"],
            enrolment_id=row["enrolment_id"],
            attempts=row["attempts"],
            provider=row["provider"],
            provider_id=row["provider_id"],
            planned_at=row["created_at"],
            claimed_at=row["claimed_at"],
            sent_at=row["sent_at"],
            settled_at=row["settled_at"],
        )

    return router


def _run_out(row: Any) -> EnrolmentOut:
    active = row["active"]
    return EnrolmentOut(
        enrolment_id=row["enrolment_id"],
        sequence_id=row["sequence_id"],
        sequence_version=row["version"],
        run=row["run"],
        state="active" if active else "ended",
        reason=row["reason"],
        triggered_at=row["triggered_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        next_step_id=row["step_id"] if active else None,
        due_at=row["due_at"] if active else None,
        waits_because=row["hold"] if active else None,
        waits_at=row["waits_at"] if active else None,
        variants=row["variants"],
    )
