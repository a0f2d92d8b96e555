"""Why a lead would move: what each rule gives it now, and what it would give."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.scoring.engagement.domain import Touch
from services.scoring.parts import Parts
from services.scoring.people.domain import merged_personal
from services.scoring.people.handlers import person_profiles, touches_of_person
from services.scoring.people.queries import load_people
from services.scoring.rules.document import RuleSet
from services.scoring.rules.slices import Trial
from services.scoring.rules.tally import Change
from shared.db import Connection, Database
from shared.ids import LeadId

Given = dict[tuple[str, str], float]


async def why_moved(database: Database, parts: Parts, trial: Trial, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The leads that move most, with every rule's points before and after: first the rule that makes most of it."""
    told = []
    async with database.reading() as connection, connection.transaction(readonly=True):
        people = await load_people(connection, [change.lead_id for change in changes])
        for change in changes:
            person = people.get(change.lead_id)
            if person is None:
                continue
            serving = await parts.rules.at_version(connection, person.rules_version)
            moment = person.engagement.moment(trial.now)
            before = await _given(connection, parts, serving, change.lead_id, moment)
            after = await _given(connection, parts, trial.candidate, change.lead_id, moment)
            before |= {("fit", rule_id): points for rule_id, points in person.fit.rules}
            seen = dict(person.lead)
            if trial.candidate.reads_personal:
                profiles = await person_profiles(connection, parts, [change.lead_id])
                seen |= merged_personal(change.lead_id, profiles.get(change.lead_id, []))
            after |= {("fit", rule_id): points for rule_id, points in trial.candidate.fit.judge(seen).rules}
            told.append(_told(change, before, after))
    return told


async def _given(connection: Connection, parts: Parts, rules: RuleSet, lead_id: LeadId, at: datetime) -> Given:
    """What each engagement rule is worth at a moment, before the limits of groups and of all."""
    touches: list[Touch] = []

    def keep(page: list[Touch]) -> None:
        touches.extend(touch for touch in page if rules.engagement.met_by(touch))

    await touches_of_person(connection, parts, rules.engagement, lead_id, keep)
    given: Given = {}
    for one in rules.engagement.contributions(touches, at):
        given["engagement", one.rule_id] = given.get(("engagement", one.rule_id), 0.0) + one.points
    return given


def _told(change: Change, before: Given, after: Given) -> dict[str, Any]:
    def rule(key: tuple[str, str]) -> dict[str, Any]:
        was, would_be = round(before.get(key, 0.0), 6), round(after.get(key, 0.0), 6)
        return {"kind": key[0], "rule_id": key[1], "before": was, "after": would_be}

    rules = sorted(
        (rule(key) for key in before.keys() | after.keys()),
        key=lambda one: (-abs(one["after"] - one["before"]), one["kind"], one["rule_id"]),
    )
    return {
        "lead_id": change.lead_id,
        "before": change.before.as_json(),
        "after": change.after.as_json(),
        "rules": rules,
    }
