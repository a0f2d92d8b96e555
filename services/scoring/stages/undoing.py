"""Take back what a touch that is known to be a machine's, or rules that were rolled back, did to a person's stage.

A stage with a `leave_when` is held on to, and what was furthest is remembered. Both may rest on what is taken back. So
the past is gone through again without it, by what is known today of the profile and of sales; what the person would not
have come to is let go, and then judged as ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce

from services.scoring.decisions.domain import further
from services.scoring.engagement.domain import Day, DayKey, Engagement, Touch
from services.scoring.parts import Parts
from services.scoring.people.handlers import touches_of_person
from services.scoring.people.queries import load_people
from services.scoring.rules.document import RuleSet
from services.scoring.stages import queries
from services.scoring.stages.domain import FIRST, Standing, Verdict
from services.scoring.stages.handlers import personal_parts, settle
from shared.db import Connection, Tx
from shared.events import Stage
from shared.ids import LeadId


@dataclass(frozen=True, slots=True)
class Undone:
    """Touches, or rules, that do not count any more: since when they did, and the sentence that says which and why.

    `stages` are those that may rest on them; None: any.
    """

    since: datetime
    why: str
    stages: frozenset[Stage] | None = None

    def joined(self, other: "Undone | None") -> "Undone":
        """Both. The sentence is that of one of them: the journey tells of all."""
        return self if other is None else Undone(min(self.since, other.since), other.why)


@dataclass(frozen=True, slots=True)
class Past:
    """What a person came to by what it did: the stages held on to at the end, and all that were ever entered."""

    held: frozenset[str]
    entered: frozenset[Stage]


async def settle_undone(
    tx: Tx, parts: Parts, causes: Mapping[LeadId, str], undone: Mapping[LeadId, Undone], *, quietly: bool = False
) -> None:
    """Judge persons, made anew without what is undone, and say by what a stage is no more."""
    if not undone:
        return
    people = await load_people(tx.connection, undone)
    personal = await personal_parts(tx.connection, parts, people)
    stood = await queries.lock_stood(tx.connection, undone)
    saved = []
    for person_id, person in sorted(people.items()):
        before = stood[person_id]
        rules = await parts.rules.at_version(tx.connection, person.rules_version)
        touches = await _touches(tx.connection, parts, rules, person_id)
        past = gone_through(rules, person.standing(personal.get(person_id)), touches)
        furthest = before.furthest
        if furthest not in past.entered and furthest == before.verdict.stage:
            reached = await queries.reached_before(tx.connection, person_id, undone[person_id].since)
            furthest = reduce(further, past.entered | reached, FIRST)
        stages = undone[person_id].stages
        may_go = before.verdict.held if stages is None else before.verdict.held & stages
        verdict = replace(before.verdict, held=before.verdict.held - (may_go - past.held))
        saved.append(replace(before, verdict=verdict, furthest=furthest))
    await queries.save_stood(tx.connection, saved)
    whys = {person_id: one.why for person_id, one in undone.items()}
    await settle(tx, parts, causes, replan=True, because=whys, quietly=quietly)


def gone_through(rules: RuleSet, today: Standing, touches: Iterable[Touch]) -> Past:
    """A person's past by its touches, each judged at its moment: just before it, since points decay, and with it."""
    engagement, days, verdict = Engagement(), dict[DayKey, Day](), Verdict()
    entered: set[Stage] = {FIRST}
    for touch in sorted(touches, key=lambda one: (one.occurred_at, one.event_id)):
        if engagement.newest is not None:
            verdict = rules.stages.at(replace(today, engagement=engagement), verdict, touch.occurred_at)
        engagement, changed = rules.engagement.fold(engagement, days, [touch])
        days.update(changed)
        verdict = rules.stages.at(replace(today, engagement=engagement), verdict, touch.occurred_at)
        entered.add(verdict.stage)
    return Past(verdict.held, frozenset(entered))


async def _touches(connection: Connection, parts: Parts, rules: RuleSet, person_id: LeadId) -> list[Touch]:
    found: list[Touch] = []
    await touches_of_person(connection, parts, rules.engagement, person_id, found.extend)
    return found
