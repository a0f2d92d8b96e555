"""Decide where persons stand, tell it, and plan the next look. A rebuild does none of this."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args

from services.scoring.parts import Parts
from services.scoring.people.domain import Person, merged_personal
from services.scoring.people.handlers import person_profiles
from services.scoring.people.queries import load_people
from services.scoring.stages import queries
from services.scoring.stages.domain import Check, Score, Verdict
from services.scoring.stages.queries import Stood
from shared.db import Connection, Database, Tx
from shared.events import (
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    ConsentChanged,
    DealChanged,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadScored,
    LeadUnmerged,
    Stage,
    StageChanged,
)
from shared.identity import resolve_many
from shared.ids import EventId, LeadId, derived_id
from shared.telemetry import counter

STAGE_CHANGES = counter("throughline_stage_changes_total", "Stage changes by the stage entered", ["stage"])
PAGE = 500
LeadFact = (
    LeadCaptured
    | ConsentChanged
    | LeadErased
    | LeadAssigned
    | AssignmentAccepted
    | AssignmentRejected
    | AssignmentExpired
    | DealChanged
)
_ORDER = {stage: place for place, stage in enumerate(get_args(Stage))}
_SET_ASIDE = frozenset({"disqualified", "recycled"})


async def settle_told(events: Sequence[LeadFact], tx: Tx, *, parts: Parts) -> None:
    """Judge those whom facts are about."""
    owners = await resolve_many(tx.connection, [(event.lead_id, None) for event in events])
    await settle(tx, parts, {owner: event.event_id for owner, event in zip(owners, events, strict=True)})


async def settle_identified(event: LeadMerged | LeadUnmerged | IdentityLinked, tx: Tx, *, parts: Parts) -> None:
    """Judge those whose facts became others'. The survivor of a merge keeps what either had reached."""
    if isinstance(event, LeadMerged):
        stood = await queries.lock_stood(tx.connection, [event.from_lead_id, event.lead_id])
        survivor, held = stood[event.lead_id], stood[event.from_lead_id].verdict.held
        if held - survivor.verdict.held:
            verdict = replace(survivor.verdict, held=survivor.verdict.held | held)
            await queries.save_stood(tx.connection, [replace(survivor, verdict=verdict)])
    await settle_unsettled(tx, parts, event.event_id)


async def settle_unsettled(tx: Tx, parts: Parts, cause: str) -> int:
    """Judge some of those who were marked for it; answers how many."""
    person_ids = await queries.take_unsettled(tx.connection, PAGE)
    await settle(tx, parts, dict.fromkeys(person_ids, cause), replan=True)
    return len(person_ids)


async def settle_due(database: Database, parts: Parts) -> timedelta | None:
    """Judge all whose time has come, and those marked; answers how long until the next one's time."""
    while True:
        async with database.transaction() as tx:
            due = await queries.claim_due(tx.connection, parts.clock.now(), PAGE)
            causes = {person_id: f"due:{at.isoformat()}" for person_id, at in due.items()}
            await settle(tx, parts, causes, replan=True)
            marked = await settle_unsettled(tx, parts, "facts changed")
        if len(due) < PAGE and marked < PAGE:
            break
    async with database.reading() as connection:
        at = await queries.next_due(connection)
    return None if at is None else max(at - parts.clock.now(), timedelta(milliseconds=10))


async def settle(
    tx: Tx,
    parts: Parts,
    causes: Mapping[LeadId, str],
    *,
    at_hand: Mapping[LeadId, Person] | None = None,
    replan: bool = False,
) -> None:
    """Judge persons after what `causes` names. `replan` plans their next look anew, else it only moves closer.

    A page at a time: between two statements of a transaction little may be computed, or the server ends it.
    """
    ordered = sorted(causes)
    for start in range(0, len(ordered), PAGE):
        page = {person_id: causes[person_id] for person_id in ordered[start : start + PAGE]}
        people = {person_id: at_hand[person_id] for person_id in page if person_id in at_hand} if at_hand else {}
        people |= await load_people(tx.connection, page.keys() - people.keys())
        await _settle_page(tx, parts, page, people, replan=replan)


async def _settle_page(
    tx: Tx, parts: Parts, causes: Mapping[LeadId, str], people: Mapping[LeadId, Person], *, replan: bool
) -> None:
    stood = await queries.lock_stood(tx.connection, causes)
    personal = await _personal(tx.connection, parts, people)
    now = parts.clock.now()
    saved: list[Stood] = []
    changes: list[tuple[StageChanged, str]] = []
    gone = [person_id for person_id in causes if person_id not in people and stood[person_id].due is not None]
    checks = list[tuple[LeadId, Check | None]]([(person_id, None) for person_id in gone])
    for person_id, person in sorted(people.items()):
        rules = (await parts.rules.at_version(tx.connection, person.rules_version)).stages
        before, standing = stood[person_id], person.standing(personal.get(person_id))
        verdict, score = rules.judge(standing, before.verdict, now)
        after, facts = _told(before, verdict, person, score, now, causes[person_id])
        if after is not before:
            saved.append(after)
        tx.emit(*facts)
        changes += [(fact, causes[person_id]) for fact in facts if isinstance(fact, StageChanged)]
        check = rules.next_check(standing, now, None if replan else before.due, exactly=replan)
        if check != before.due and (replan or _sooner(check, before.due)):
            checks.append((person_id, check))
    await queries.save_stood(tx.connection, saved)
    await queries.record_changes(tx.connection, changes)
    await queries.schedule(tx.connection, checks)
    for change, _ in changes:
        STAGE_CHANGES.labels(change.stage).inc()


def _sooner(check: Check | None, planned: Check | None) -> bool:
    """A look that comes too early only looks again, so a plan is not put off: that would cost a write a touch."""
    return check is not None and (planned is None or check.at < planned.at)


def _told(  # noqa: PLR0913  # what a decision is made of
    before: Stood, verdict: Verdict, person: Person, score: Score, now: datetime, cause: str
) -> tuple[Stood, list[LeadScored | StageChanged]]:
    """Where the person stands now, and what to tell: whatever others can see of it has changed."""
    moved = verdict.stage != before.verdict.stage
    whole, grade = round(score.total), person.fit.grade
    if not moved and (before.told_total, before.told_grade) == (whole, grade):
        return (before if verdict == before.verdict else replace(before, verdict=verdict)), []
    first = before.told_total is None
    after = replace(
        before,
        verdict=verdict,
        furthest=_further(before.furthest, verdict.stage),
        since=score.at if moved or first else before.since,
        revision=before.revision + 1,
        told_total=whole,
        told_grade=grade,
    )
    told: dict[str, Any] = {
        "lead_id": person.person_id,
        "occurred_at": score.at,
        "received_at": now,
        "revision": after.revision,
        "engagement": score.engagement,
        "fit": score.fit,
        "total": score.total,
        "grade": grade,
        "stage": verdict.stage,
        "rules_version": person.rules_version,
    }
    facts: list[LeadScored | StageChanged] = [
        LeadScored(event_id=_event_id(cause, "scored", person.person_id, after.revision), **told)
    ]
    if moved:
        facts.append(
            StageChanged(
                event_id=_event_id(cause, "stage", person.person_id, after.revision),
                previous=None if first else before.verdict.stage,
                reason=verdict.reason,
                profile_revision=person.profile_revision,
                **told,
            )
        )
    return after, facts


def _event_id(cause: str, kind: str, person_id: LeadId, revision: int) -> EventId:
    return EventId(derived_id("scoring", cause, kind, person_id, str(revision)))


def _further(one: Stage, other: Stage) -> Stage:
    return one if other in _SET_ASIDE else max(one, other, key=lambda stage: _ORDER[stage])


async def _personal(
    connection: Connection, parts: Parts, people: Mapping[LeadId, Person]
) -> dict[LeadId, dict[str, Any]]:
    """What is personal in the profiles of those whose stages depend on it."""
    wanted = [
        person_id
        for person_id, person in sorted(people.items())
        if (await parts.rules.at_version(connection, person.rules_version)).stages_read_personal
    ]
    if not wanted:
        return {}
    profiles = await person_profiles(connection, parts, wanted)
    return {person_id: merged_personal(person_id, known) for person_id, known in profiles.items()}
