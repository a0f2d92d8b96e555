"""Explanations over HTTP: of a person's past, a message, a run, and of somebody who is not in a sequence."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from services.nurture.errors import NoSuchLead, NoSuchMessage, NoSuchRun, NoSuchSequence
from services.nurture.explaining import queries
from services.nurture.explaining.domain import ENTRY, summary
from services.nurture.explaining.entering import Entering, Verdict, would_enter
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.takeover import handlers as takeover
from services.nurture.takeover.domain import heeded
from services.nurture.tracking.domain import CLICKS
from shared.db import Connection
from shared.emails import Email
from shared.identity import find_by_email, resolve
from shared.ids import LeadId, SequenceId
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires

Order = Annotated[Literal["newest", "oldest"], Query(description="Which entry comes first")]
Token = Annotated[
    str, Query(pattern=r"^[a-z][a-z0-9_]{0,99}$", description="Suppose that this happens: a touch's type")
]


class EntryOut(BaseModel):
    """Something that happened: what (`kind`), to which thing (`id`), why, and what belongs to it."""

    at: datetime
    kind: str
    id: str
    because: str | None
    details: dict[str, Any]


class ConsentOut(BaseModel):
    """The word about consent that counted, since when, and who told it."""

    channel: str
    purpose: str
    allowed: bool
    state: str | None
    since: datetime | None
    why: str
    origin: str | None = None
    origin_reason: str | None = None


class HoldOut(BaseModel):
    """What a message waited for: first and last seen, and until when at the latest if that was known.

    Held for this at `expires_at`, it is not sent any more.
    """

    reason: str
    since: datetime
    last_seen_at: datetime
    until: datetime | None = None
    expires_at: datetime | None = None
    looks: int


class CountsOut(BaseModel):
    """Opens, and links clicked."""

    opens: int
    clicks: int


class MessageExplained(BaseModel):
    """Why a message was sent, held, skipped or suppressed.

    `checks` are those that were asked for the last decision, in their order; the first that objects ends the asking.
    `responses` are `raw` as they came, and `filtered` without machines'.
    """

    message_id: str
    state: str
    summary: str
    reason: str | None
    channel: str
    enrolment_id: str
    sequence_id: str
    sequence_version: int
    step_id: str
    visit: int
    run: int
    run_triggered_at: datetime | None
    run_cause_event_id: str | None
    trigger: dict[str, Any] | None
    planned_at: datetime
    decided_at: datetime | None
    claimed_at: datetime | None
    sent_at: datetime | None
    settled_at: datetime
    stage: str | None
    consent: ConsentOut | None
    suppressions: list[dict[str, Any]]
    suppressions_now: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    holds: list[HoldOut]
    attempts: int
    answers: list[dict[str, Any]]
    raw: CountsOut
    filtered: CountsOut
    responses: list[dict[str, Any]]


class PassedOut(BaseModel):
    """A place that a run came past: how it began, a branch with the way it took, or a message."""

    at: datetime
    kind: Literal["entered", "branch", "message"]
    step_id: str | None
    next_step_id: str | None = None
    because: dict[str, Any]


class RunExplained(BaseModel):
    """The way of a run so far, and what it waits for or how it ended."""

    enrolment_id: str
    sequence_id: str
    sequence_version: int
    run: int
    state: Literal["active", "ended"]
    reason: str | None
    cause_event_id: str
    triggered_at: datetime
    started_at: datetime
    ended_at: datetime | None
    path: list[PassedOut]
    next_step_id: str | None
    due_at: datetime | None
    waits_because: str | None


class EnteringExplained(BaseModel):
    """Whether a lead would enter a sequence now: `on_fact` when nothing is missing but something that happens.

    `pauses` and `permissions` do not keep anybody out, but hold or suppress what is sent.
    """

    sequence_id: str
    sequence_version: int
    would_enter: Verdict
    obstacles: list[str]
    conditions: list[dict[str, Any]]
    reentry: str
    waiting_facts: list[dict[str, Any]]
    permissions: list[ConsentOut]
    suppressions: list[dict[str, Any]]
    pauses: list[dict[str, Any]]


def explaining_router(parts: Parts) -> APIRouter:
    """The endpoints that say why."""
    router = Endpoints(tags=["explanations"], dependencies=[Depends(requires("nurture:read"))])
    runtime = parts.runtime

    @router.get("/v1/leads/{lead_id}/timeline")
    async def timeline_of_lead(
        lead_id: str, order: Order = "newest", limit: Limit = 50, cursor: str | None = None
    ) -> Page[EntryOut]:
        """All that nurture was told of a lead, decided, did and refused, in order."""
        async with runtime.database.reading() as connection:
            person = await known(connection, await resolve(connection, LeadId(lead_id)))
            return await timeline(connection, person, order, limit, cursor)

    @router.get("/v1/timeline")
    async def timeline_by_address(
        email: Annotated[Email, Query(description="The lead's address")],
        order: Order = "newest",
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[EntryOut]:
        """The same of the lead with this address."""
        async with runtime.database.reading() as connection:
            person = await known(connection, await find_by_email(connection, runtime.ids, email))
            return await timeline(connection, person, order, limit, cursor)

    @router.get("/v1/messages/{message_id}/explain")
    async def explain_message(message_id: str) -> MessageExplained:
        """Why a message was sent, held, skipped or suppressed: by which version, against which consent."""
        async with runtime.database.reading() as connection:
            return await message(connection, message_id, None)

    @router.get("/v1/leads/{lead_id}/messages/{message_id}/explain")
    async def explain_message_of_lead(lead_id: str, message_id: str) -> MessageExplained:
        """The same, of a message to this lead."""
        async with runtime.database.reading() as connection:
            person = await known(connection, await resolve(connection, LeadId(lead_id)))
            return await message(connection, message_id, person)

    @router.get("/v1/enrolments/{enrolment_id}/explain")
    async def explain_run(enrolment_id: str) -> RunExplained:
        """Which way a run went and why, and what it waits for."""
        async with runtime.database.reading() as connection:
            row = await queries.run(connection, enrolment_id)
            if row is None:
                raise NoSuchRun(f"there is no run {enrolment_id[:100]}")
            turns = await queries.turns_of(connection, enrolment_id)
            messages = await queries.messages_of_run(connection, enrolment_id)
        return _run_explained(row, turns, messages)

    @router.get("/v1/leads/{lead_id}/sequences/{sequence_id}/explain")
    async def explain_entering(lead_id: str, sequence_id: str, event: Token | None = None) -> EnteringExplained:
        """Why a lead is not in a sequence: what of the trigger does not hold, whether it may enter again."""
        async with runtime.database.reading() as connection:
            person = await known(connection, await resolve(connection, LeadId(lead_id)))
            version = await SEQUENCES.active_version(connection, sequence_id)
            if version is None:
                raise NoSuchSequence(f"there is no sequence {sequence_id[:100]}")
            plan = await parts.catalogue.plan(connection, SequenceId(sequence_id), version)
            found = await would_enter(connection, parts, plan, person.person_id, event)
            now = await parts.present(connection)
            pauses, _ = await takeover.standing(connection, parts, person.person_id, now)
            held = heeded(pauses, plan.pause_on)
            paused = [{"pause_id": one.pause_id, "why": one.why, "until": one.until} for one in held]
            return _entering_explained(plan.sequence_id, version, plan.purpose, person, found, paused)

    @router.get("/v1/sequences/{sequence_id}/explain")
    async def explain_entering_by_address(
        sequence_id: str,
        email: Annotated[Email, Query(description="The lead's address")],
        event: Token | None = None,
    ) -> EnteringExplained:
        """The same of the lead with this address."""
        async with runtime.database.reading() as connection:
            lead_id = await find_by_email(connection, runtime.ids, email)
        return await explain_entering(lead_id, sequence_id, event)

    async def known(connection: Connection, person_id: LeadId) -> Person:
        person = await people.load_person(connection, parts.addresses, runtime.keys, person_id)
        if not person.known:
            raise NoSuchLead(f"nothing is known of a lead {person_id[:100]}")
        return person

    async def timeline(
        connection: Connection, person: Person, order: Literal["newest", "oldest"], limit: int, cursor: str | None
    ) -> Page[EntryOut]:
        of = f"timeline-{order}"
        told = read_cursor(runtime.secrets, of, cursor)
        place = (datetime.fromisoformat(told[0]), str(told[1]), str(told[2])) if told else None
        family = (await people.load_families(connection, [person.person_id]))[person.person_id]
        hashes = parts.addresses.hashes_of(person.email, person.phone)
        rows = await queries.happened(connection, family, hashes, order, place, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, of, [last["at"].isoformat(), last["kind"], last["name"]]) if last else None
        items = [
            EntryOut(at=row["at"], kind=row["kind"], id=row["name"], because=row["because"], details=row["details"])
            for row in rows[:limit]
        ]
        return Page(items=items, next_cursor=more)

    async def message(connection: Connection, message_id: str, person: Person | None) -> MessageExplained:
        row = await queries.message(connection, message_id)
        if row is None or (person is not None and not {row["lead_id"], row["person_id"]} & set(person.ids)):
            raise NoSuchMessage(f"there is no message {message_id[:100]}")
        whose = person or await people.load_person(
            connection, parts.addresses, runtime.keys, await resolve(connection, LeadId(row["lead_id"]))
        )
        taken = row["decision"] or {}
        turns = await queries.turns_of(connection, row["enrolment_id"])
        run = await queries.run(connection, row["enrolment_id"])
        responses = [dict(one) for one in await queries.responses_to(connection, message_id)]
        return _message_explained(
            row, taken, run, turns, whose, responses, await consent_of(connection, whose, taken.get("consent"))
        )

    async def consent_of(connection: Connection, person: Person, said: dict[str, Any] | None) -> ConsentOut | None:
        if said is None:
            return None
        consent = ConsentOut(**said)
        if consent.state is None or consent.since is None:
            return consent
        word = await queries.word_of(
            connection, person.ids, consent.channel, consent.state, consent.since, consent.purpose
        )
        told = {"origin": word["origin"], "origin_reason": word["reason"]} if word is not None else {}
        return consent.model_copy(update=told)

    return router


def _message_explained(  # noqa: PLR0913  # what is known of a message
    row: Any,
    taken: dict[str, Any],
    run: Any,
    turns: Any,
    person: Person,
    responses: list[dict[str, Any]],
    consent: ConsentOut | None,
) -> MessageExplained:
    same = ("message_id", "state", "reason", "channel", "enrolment_id", "sequence_id", "step_id", "visit", "run")
    times = ("claimed_at", "sent_at", "settled_at", "attempts")
    entry = next((turn["because"] for turn in turns if turn["step_id"] == ENTRY), None)
    return MessageExplained(
        **{name: row[name] for name in (*same, *times)},
        sequence_version=row["version"],
        summary=summary(row["state"], row["reason"], taken),
        run_triggered_at=run["triggered_at"] if run is not None else None,
        run_cause_event_id=run["cause_event_id"] if run is not None else None,
        trigger=entry,
        planned_at=row["created_at"],
        decided_at=taken.get("at"),
        stage=taken.get("stage"),
        consent=consent,
        suppressions=taken.get("suppressions", []),
        suppressions_now=[{"reason": one.reason, "since": one.since} for one in person.suppressions],
        checks=taken.get("checks", []),
        holds=[HoldOut(**{**hold, "last_seen_at": hold["last"]}) for hold in taken.get("holds", [])],
        answers=taken.get("attempts", []),
        raw=_counts(responses),
        filtered=_counts([one for one in responses if one["automated_reason"] is None]),
        responses=responses,
    )


def _counts(responses: list[dict[str, Any]]) -> CountsOut:
    """Opens count once for a message, clicks once for a link."""
    opens = any(one["kind"] == "email_opened" for one in responses)
    links = {one["number"] for one in responses if one["kind"] in CLICKS.values()}
    return CountsOut(opens=int(opens), clicks=len(links))


def _run_explained(row: Any, turns: Any, messages: Any) -> RunExplained:
    path = [
        PassedOut(
            at=turn["at"],
            kind="entered" if turn["step_id"] == ENTRY else "branch",
            step_id=turn["step_id"] or None,
            next_step_id=turn["next_step_id"],
            because=turn["because"],
        )
        for turn in turns
    ]
    path += [
        PassedOut(
            at=one["sent_at"] or one["created_at"],
            kind="message",
            step_id=one["step_id"],
            because={name: one[name] for name in ("message_id", "visit", "state", "reason")},
        )
        for one in messages
    ]
    same = ("enrolment_id", "sequence_id", "run", "reason", "cause_event_id", "triggered_at", "started_at", "ended_at")
    active = row["active"]
    return RunExplained(
        **{name: row[name] for name in same},
        sequence_version=row["version"],
        state="active" if active else "ended",
        path=sorted(path, key=lambda one: one.at),
        next_step_id=row["step_id"] if active else None,
        due_at=row["due_at"] if active else None,
        waits_because=row["hold"] if active else None,
    )


def _entering_explained(  # noqa: PLR0913  # what an answer is made of
    sequence_id: str, version: int, purpose: str, person: Person, found: Entering, paused: list[dict[str, Any]]
) -> EnteringExplained:
    return EnteringExplained(
        sequence_id=sequence_id,
        sequence_version=version,
        would_enter=found.verdict,
        obstacles=list(found.obstacles),
        conditions=[
            {"source": one.source, "holds": one.holds, "why": one.why, "values": one.values} for one in found.conditions
        ],
        reentry=found.reentry,
        waiting_facts=[
            {"type": fact.fields["type"], "occurred_at": fact.occurred_at, "event_id": fact.event_id}
            for fact in found.waiting
        ],
        permissions=[
            ConsentOut(
                channel=channel,
                purpose=purpose,
                allowed=said.allowed,
                state=said.state,
                since=said.since,
                why=said.why,
            )
            for channel, said in found.permissions
        ],
        suppressions=[{"reason": one.reason, "since": one.since} for one in person.suppressions],
        pauses=paused,
    )
