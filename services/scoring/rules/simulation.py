"""What other rules would have made of the last days: who would change and how, without effect."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from services.scoring.parts import Parts
from services.scoring.people.domain import Person, merged_personal
from services.scoring.people.handlers import imagined, person_profiles
from services.scoring.people.queries import load_people
from services.scoring.rules import queries
from services.scoring.rules.document import RuleSet, rule_set
from services.scoring.stages.domain import Verdict
from services.scoring.stages.queries import load_stood
from shared.db import Connection, Database
from shared.ids import LeadId

PAGE = 100
LISTED = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """A person's numbers under some rules."""

    engagement: float
    fit: int
    total: float
    grade: str
    stage: str

    def as_json(self) -> dict[str, Any]:
        """As it stands in the answer."""
        return {name: getattr(self, name) for name in ("engagement", "fit", "total", "grade", "stage")}


async def simulate(database: Database, parts: Parts, document: dict[str, Any], days: int) -> dict[str, Any]:
    """Compare how persons of the last days stand with how they would stand; the greatest changes come first."""
    candidate = rule_set(0, document)
    persons = 0
    stages_before, stages_after = Counter[str](), Counter[str]()
    changed: list[tuple[LeadId, Outcome, Outcome]] = []
    async for person_id, before, after in _outcomes(database, parts, candidate, days):
        persons += 1
        stages_before[before.stage] += 1
        stages_after[after.stage] += 1
        if (round(before.total), before.grade, before.stage) != (round(after.total), after.grade, after.stage):
            changed.append((person_id, before, after))
    changed.sort(key=lambda one: (one[1].stage == one[2].stage, -abs(one[1].total - one[2].total), one[0]))
    return {
        "persons": persons,
        "changed": len(changed),
        "stages": {
            stage: {"before": stages_before[stage], "after": stages_after[stage]}
            for stage in sorted(stages_before.keys() | stages_after.keys())
        },
        "items": [
            {"lead_id": person_id, "before": before.as_json(), "after": after.as_json()}
            for person_id, before, after in changed[:LISTED]
        ],
    }


async def _outcomes(
    database: Database, parts: Parts, candidate: RuleSet, days: int
) -> AsyncIterator[tuple[LeadId, Outcome, Outcome]]:
    since = parts.clock.now() - timedelta(days=days)
    last = LeadId("")
    while True:
        async with database.reading() as connection, connection.transaction(readonly=True):
            person_ids = await queries.active_since(connection, last, since, PAGE)
            people = await load_people(connection, person_ids)
            stood = await load_stood(connection, person_ids)
            for person_id in person_ids:
                verdict = stood[person_id].verdict if person_id in stood else Verdict()
                rules = await parts.rules.at_version(connection, people[person_id].rules_version)
                before = await _outcome(connection, parts, rules, people[person_id], verdict)
                person = await imagined(connection, parts, candidate, person_id)
                yield person_id, before, await _outcome(connection, parts, candidate, person, verdict)
        if len(person_ids) < PAGE:
            return
        last = person_ids[-1]


async def _outcome(connection: Connection, parts: Parts, rules: RuleSet, person: Person, verdict: Verdict) -> Outcome:
    personal = None
    if rules.stages_read_personal:
        profiles = (await person_profiles(connection, parts, [person.person_id])).get(person.person_id, [])
        personal = merged_personal(person.person_id, profiles)
    now, standing = parts.clock.now(), person.standing(personal)
    score = rules.stages.score(standing, rules.stages.moment(standing, now))
    stage = rules.stages.settle(standing, replace(verdict, reason=""), now).stage
    return Outcome(score.engagement, score.fit, score.total, person.fit.grade, stage)
