"""Would somebody enter a sequence now; and if not, what is in the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.nurture.enrolments import queries as enrolments
from services.nurture.enrolments.domain import Fact, ending, may_enter
from services.nurture.explaining.domain import parts_of, values_read
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.sequences.domain import FACTS, Plan
from shared.consents import Permission, permission
from shared.db import Connection
from shared.ids import EventId, LeadId
from shared.rules import Expression, ExpressionFault, compile_expression

Verdict = Literal["yes", "no", "on_fact"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of a trigger. `holds` is None where only a fact at hand can tell; `values` are those it reads."""

    source: str
    holds: bool | None
    why: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entering:
    """Whether a person would enter a sequence now: `on_fact` says that all but a fact is there.

    `obstacles` are the reasons why not. What is sent in the sequence is another question: see `permissions`.
    """

    verdict: Verdict
    obstacles: tuple[str, ...]
    conditions: tuple[Condition, ...]
    reentry: str
    waiting: Sequence[Fact]
    permissions: tuple[tuple[str, Permission], ...]


async def would_enter(
    connection: Connection, parts: Parts, plan: Plan, person_id: LeadId, event_type: str | None
) -> Entering:
    """What would happen if the person did something now; `event_type` supposes what that is."""
    person = await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id)
    family = (await people.load_families(connection, [person_id]))[person_id]
    now = await parts.present(connection)
    runs = [run for run in await enrolments.runs_of(connection, person.ids) if run.sequence_id == plan.sequence_id]
    pending = await enrolments.pending_facts(connection, person.ids)
    waiting = [fact for sequence_id, fact in pending if sequence_id == plan.sequence_id]
    fact = _supposed(person_id, event_type, now) if event_type is not None else None
    conditions = conditions_of(plan.trigger, person, fact)
    allowed, reentry = may_enter(plan.reentry, runs, now)
    since = await people.milestones_since(connection, family, now)
    over = ending(plan, since, person, now)
    obstacles = [f"the trigger: {one.source} does not hold: {one.why}" for one in conditions if one.holds is False]
    obstacles += [] if plan.active else ["the sequence is not active"]
    obstacles += ["the person was erased"] if person.erased else []
    obstacles += [] if allowed else [reentry]
    obstacles += [f"it would be over at once: {over.kind}, by {over.because}"] if over is not None else []
    verdict: Verdict = "no" if obstacles else "on_fact" if any(one.holds is None for one in conditions) else "yes"
    said = tuple(
        (channel, permission(person.consents, channel, plan.purpose))
        for channel in sorted({step.channel for step in plan.steps.values() if hasattr(step, "channel")})
    )
    return Entering(verdict, tuple(obstacles), conditions, reentry, waiting, said)


def conditions_of(trigger: Expression, person: Person, fact: Fact | None) -> tuple[Condition, ...]:
    """The parts of a trigger that all have to hold, each tried on what is known."""
    values = person.values() | (fact.values() if fact is not None else {})
    return tuple(_tried(part, values, supposed=fact is not None) for part in _parts(trigger))


def _parts(trigger: Expression) -> list[Expression]:
    try:
        return [compile_expression(source, FACTS) for source in parts_of(trigger.source)]
    except ExpressionFault:
        return [trigger]  # apart, the pieces say something else than together


def _tried(part: Expression, values: dict[str, Any], *, supposed: bool) -> Condition:
    read = values_read(part, values)
    if part.reads("event") and not supposed:
        return Condition(part.source, None, "a fact decides it, when it happens", read)
    holds, why = part.holds(values)
    return Condition(part.source, holds, "it holds" if holds else why, read)


def _supposed(person_id: LeadId, event_type: str, now: datetime) -> Fact:
    return Fact(EventId("supposed"), person_id, now, now, {"type": event_type})
