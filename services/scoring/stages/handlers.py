"""Decide where persons stand, tell it, and plan the next look. A rebuild does none of this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import chain
from typing import Any

from services.scoring.accounts.queries import mark_accounts
from services.scoring.decisions import queries as decision_queries
from services.scoring.decisions.domain import SET_ASIDE, Decision, further, move
from services.scoring.parts import Parts
from services.scoring.people.domain import Person, merged_personal
from services.scoring.people.handlers import person_profiles
from services.scoring.people.queries import load_people, lock_people
from services.scoring.segments.domain import BY_PROFILE, BY_SALES, EVERYTHING
from services.scoring.segments.handlers import reconsider, with_segments
from services.scoring.stages import queries
from services.scoring.stages.causes import touch_behind
from services.scoring.stages.domain import FIRST, Check, StageRules, Standing, Step
from services.scoring.stages.queries import Stood, Told
from shared.db import Connection, Tx
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
    StageChanged,
    TouchRecorded,
)
from shared.identity import owners_seen
from shared.ids import EventId, LeadId, derived_id
from shared.telemetry import counter

STAGE_CHANGES = counter("throughline_stage_changes_total", "Stage changes by the stage entered", ["stage"])
PAGE = 200
_EVER = datetime.max.replace(tzinfo=UTC)
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


@dataclass(frozen=True, slots=True)
class Fresh:
    """Touches that were just folded into a person: what the person was before, and the touches."""

    before: Person
    touches: Sequence[TouchRecorded]

    @property
    def since(self) -> datetime:
        """When the first of them happened: until then the person was as before."""
        return min(touch.occurred_at for touch in self.touches)


@dataclass(frozen=True, slots=True)
class _Why:
    """Why persons are judged: what `settle` was called with."""

    causes: Mapping[LeadId, str]
    fresh: Mapping[LeadId, Fresh]
    because: Mapping[LeadId, str]
    changed: frozenset[str]
    replan: bool
    due: bool
    decided: bool
    quietly: bool


@dataclass(slots=True)
class Judged:
    """What came of judging persons, to be written and told."""

    stood: dict[LeadId, Stood] = field(default_factory=dict)
    changes: list[Told] = field(default_factory=list)
    facts: list[LeadScored | StageChanged] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


async def settle_told(events: Sequence[LeadFact], tx: Tx, *, parts: Parts) -> None:
    """Judge those whom facts are about."""
    owners = await owners_seen(tx, [(event.lead_id, None) for event in events])
    causes = {owner: event.event_id for owner, event in zip(owners, events, strict=True)}
    await settle(tx, parts, causes, changed=_changed_by(events[0]))


async def settle_before(events: Sequence[LeadFact], tx: Tx, *, parts: Parts) -> None:
    """Judge those whose time had come before a fact about them: as they were until then."""
    owners = await owners_seen(tx, [(event.lead_id, None) for event in events])
    due = await queries.due_among(tx.connection, owners, await parts.present_in(tx))
    if due:
        await lock_people(tx.connection, due)  # in this order everywhere: the score, then where the person stands
        await settle(tx, parts, due_causes(due), replan=True, due=True)


async def settle_identified(event: LeadMerged | LeadUnmerged | IdentityLinked, tx: Tx, *, parts: Parts) -> None:
    """Judge those whose facts became others'. The survivor of a merge keeps what either had reached, until parted."""
    if isinstance(event, LeadMerged):
        stood = await queries.lock_stood(tx.connection, [event.from_lead_id, event.lead_id])
        survivor, gone = stood[event.lead_id], stood[event.from_lead_id]
        verdict = replace(survivor.verdict, held=survivor.verdict.held | gone.verdict.held)
        either = replace(survivor, verdict=verdict, furthest=further(survivor.furthest, gone.furthest))
        if either != survivor:
            await queries.save_stood(tx.connection, [either])
    elif isinstance(event, LeadUnmerged):
        parted = (await queries.lock_stood(tx.connection, [event.lead_id]))[event.lead_id]
        own = reduce(further, await queries.reached_before(tx.connection, event.lead_id, _EVER), FIRST)
        if further(own, parted.furthest) != own:
            await queries.save_stood(tx.connection, [replace(parted, furthest=own)])
    await settle_unsettled(tx, parts, event.event_id)


async def settle_unsettled(tx: Tx, parts: Parts, cause: str) -> int:
    """Judge some of those who were marked for it; answers how many."""
    person_ids = await queries.take_unsettled(tx.connection, PAGE)
    await settle(tx, parts, dict.fromkeys(person_ids, cause), replan=True, decided=True)
    return len(person_ids)


def due_causes(due: Mapping[LeadId, datetime]) -> dict[LeadId, str]:
    """What persons are judged by whose time has come."""
    return {person_id: f"due:{at.isoformat()}" for person_id, at in due.items()}


async def settle(  # noqa: PLR0913  # what tells one reason to judge from another
    tx: Tx,
    parts: Parts,
    causes: Mapping[LeadId, str],
    *,
    at_hand: Mapping[LeadId, Person] | None = None,
    fresh: Mapping[LeadId, Fresh] | None = None,
    replan: bool = False,
    due: bool = False,
    decided: bool = False,
    because: Mapping[LeadId, str] | None = None,
    quietly: bool = False,
    changed: frozenset[str] = EVERYTHING,
) -> None:
    """Judge persons after what `causes` names. `replan` plans their next look anew, else it only moves closer.

    `due`: their time has come and nothing else happened. `decided`: what was decided about them may be other than it
    was. `because` is a sentence to put before the reason of a change of stage. What is told `quietly` is for those who
    keep count, not for those who would act upon it. `changed` names what segments may find changed.

    A page at a time: between two statements of a transaction little may be computed, or the server ends it.
    """
    ordered = sorted(causes)
    for start in range(0, len(ordered), PAGE):
        page = {person_id: causes[person_id] for person_id in ordered[start : start + PAGE]}
        people = {person_id: at_hand[person_id] for person_id in page if person_id in at_hand} if at_hand else {}
        people |= await load_people(tx.connection, page.keys() - people.keys())
        why = _Why(page, fresh or {}, because or {}, changed, replan, due, decided, quietly)
        await _settle_page(tx, parts, people, why)


async def _settle_page(tx: Tx, parts: Parts, people: Mapping[LeadId, Person], why: _Why) -> None:
    causes = why.causes
    stood = await queries.lock_stood(tx.connection, causes)
    if why.decided:
        latest = await decision_queries.latest(tx.connection, people)
        stood |= {one: replace(stood[one], decision=latest.get(one)) for one in people}
    personal = await personal_parts(tx.connection, parts, people)
    now = await parts.present_in(tx)
    judged = Judged()
    gone = [person_id for person_id in causes if person_id not in people]
    idle = [person_id for person_id in gone if stood[person_id].due is not None]
    checks = list[tuple[LeadId, Check | None]]([(person_id, None) for person_id in idle])
    lost = [stood[one] for one in causes.keys() - people.keys() if stood[one].account_id]
    judged.stood = {one.person_id: replace(one, account_id=None) for one in lost}
    accounts = {one.account_id for one in stood.values()}
    for person_id, person in sorted(people.items()):
        before = stood[person_id]
        if before.erased:
            continue
        rules = (await parts.rules.at_version(tx.connection, person.rules_version)).stages
        after, planned = _judged(judged, rules, person, personal.get(person_id), before, now, why)
        if person.account_id != before.account_id:
            after = replace(after, account_id=person.account_id)
            accounts.add(person.account_id)
        if after is not before or why.decided:
            judged.stood[person_id] = after
        if person_id in judged.stood:
            judged.stood[person_id] = replace(after, due=planned[0]) if planned else after
        else:
            checks += [(person_id, check) for check in planned]
    await decision_queries.save_outcomes(tx.connection, judged.decisions)
    await queries.save_stood(tx.connection, judged.stood.values())
    await queries.record_changes(tx.connection, judged.changes)
    await queries.schedule(tx.connection, checks)
    await mark_accounts(tx.connection, filter(None, accounts))
    stages = {one: judged.stood.get(one, stood[one]).verdict.stage for one in people}
    restaged = {one for one, stage in stages.items() if stage != stood[one].verdict.stage}
    unknown = {one for one in people if stood[one].told_total is None}
    moved = await reconsider(tx, parts, people, stages, gone, changed=why.changed, restaged=restaged, fresh=unknown)
    facts = [*map(_quiet, judged.facts)] if why.quietly else judged.facts
    tx.emit(*with_segments(facts, moved))
    for change in judged.changes:
        STAGE_CHANGES.labels(change.event.stage).inc()


def _changed_by(event: LeadFact) -> frozenset[str]:
    match event:
        case LeadCaptured() | ConsentChanged():
            return BY_PROFILE
        case LeadErased():
            return EVERYTHING
        case _:
            return BY_SALES


def _judged(  # noqa: PLR0913  # what a decision is made of
    judged: Judged,
    rules: StageRules,
    person: Person,
    personal: dict[str, Any] | None,
    before: Stood,
    now: datetime,
    why: _Why,
) -> tuple[Stood, list[Check | None]]:
    """Where a person stands now, and when to look again if that is other than it was planned."""
    person_id, anew, after = person.person_id, why.replan, before
    news = why.fresh.get(person_id)
    if why.due:
        after = _walk(judged, rules, person, personal, after, now, now)
    elif news is not None and before.due is not None and before.due.at <= news.since:
        anew = True
        after = _walk(judged, rules, news.before, personal, after, min(news.since, now), now)
    standing = person.standing(personal, after.decision, after.since)
    if not why.due:
        step = rules.arrive(standing, after.verdict, _present(rules, standing, now))
        if person_id in why.because and step.verdict.stage != after.verdict.stage:
            verdict = replace(step.verdict, reason=f"{why.because[person_id]}: {step.verdict.reason}")
            step = replace(step, verdict=verdict)
        after = _take(judged, rules, person, after, step, step.score.at, now, why.causes[person_id], news)
        standing = step.standing
    check = rules.next_check(standing, _present(rules, standing, now), None if anew else before.due, exactly=anew)
    other = check != before.due and (anew or _sooner(check, before.due))
    return after, [check] if other else []


def _present(rules: StageRules, standing: Standing, now: datetime) -> datetime:
    """Now; but never before what was told last, so that a clock set back brings nothing back that decay has ended."""
    entered = standing.entered
    if entered is None or entered <= now or rules.moment(standing, now) != now:
        return now
    return entered


def _walk(  # noqa: PLR0913  # what a decision is made of
    judged: Judged,
    rules: StageRules,
    person: Person,
    personal: dict[str, Any] | None,
    stood: Stood,
    until: datetime,
    now: datetime,
) -> Stood:
    """Go through all that turned by time alone since the planned look, each at its own instant."""
    assert stood.due is not None
    since = max(stood.due.at, stood.since or stood.due.at)
    if since > until:
        return stood
    standing = person.standing(personal, stood.decision, stood.since)
    first = rules.look(standing, stood.verdict, since)
    for step in chain([first], rules.steps(first.standing, first.verdict, since, until)):
        cause = f"due:{step.at.isoformat()}"
        stood = _take(judged, rules, person, stood, step, step.at, now, cause, None)
    return stood


def _take(  # noqa: PLR0913  # the same
    judged: Judged,
    rules: StageRules,
    person: Person,
    before: Stood,
    step: Step,
    at: datetime,
    now: datetime,
    cause: str,
    news: Fresh | None,
) -> Stood:
    """Where the person stands after a judgement, and what is told: whatever others can see of it has changed."""
    verdict, score, decision = step.verdict, step.score, step.standing.decision
    if decision != before.decision and decision is not None:
        decision = decision if decision.lead_id else replace(decision, lead_id=person.person_id)
        judged.decisions.append(decision)
    after = before
    if verdict != before.verdict or decision != before.decision:
        after = replace(before, verdict=verdict, decision=decision)
    moved = verdict.stage != before.verdict.stage
    whole, grade = round(score.total), person.fit.grade
    beside = {name: round(points) for name, points in score.named.items()}
    known = (before.told_total, before.told_grade, before.told_scores)
    if not moved and known == (whole, grade, beside):
        return after
    first = before.told_total is None
    at = max(at, before.since) if before.since is not None else at
    after = replace(
        after,
        furthest=further(before.furthest, verdict.stage),
        since=at if moved or first else before.since,
        revision=before.revision + 1,
        told_total=whole,
        told_grade=grade,
        told_scores=beside,
    )
    told: dict[str, Any] = {
        "lead_id": person.person_id,
        "occurred_at": at,
        "received_at": now,
        "revision": after.revision,
        "engagement": score.engagement,
        "fit": score.fit,
        "total": score.total,
        "grade": grade,
        "stage": verdict.stage,
        "rules_version": person.rules_version,
        # An empty one says that there are none any more; where there never were any, nothing is said.
        "scores": score.named if score.named or before.told_scores else None,
    }
    judged.facts.append(LeadScored(event_id=_event_id(cause, "scored", person.person_id, after.revision), **told))
    if moved:
        previous = None if first else before.verdict.stage
        by_hand = verdict.decision is not None and decision is not None and decision.by_hand
        change = StageChanged(
            event_id=_event_id(cause, "stage", person.person_id, after.revision),
            previous=previous,
            reason=verdict.reason,
            profile_revision=person.profile_revision,
            move=move(previous, verdict.stage, set_by_hand=by_hand),
            until=rules.returns_at(step.standing) if verdict.stage in SET_ASIDE else None,
            **told,
        )
        touch = touch_behind(rules.engagement, news.touches) if news is not None else None
        judged.facts.append(change)
        judged.changes.append(Told(change, cause, verdict.decision or _ended(before), touch))
    return after


def _ended(before: Stood) -> str | None:
    """The decision that no longer stands, if that is what moved the lead."""
    return before.verdict.decision


def _quiet(fact: LeadScored | StageChanged) -> LeadScored | StageChanged:
    return fact.model_copy(update={"quiet": True}) if isinstance(fact, StageChanged) else fact


def _event_id(cause: str, kind: str, person_id: LeadId, revision: int) -> EventId:
    return EventId(derived_id("scoring", cause, kind, person_id, str(revision)))


def _sooner(check: Check | None, planned: Check | None) -> bool:
    """A look that comes too early only looks again, so a plan is not put off: that would cost a write a touch."""
    return check is not None and (planned is None or check.at < planned.at)


async def personal_parts(
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
