"""A slice of people, simulated: read in a few statements, each person's past gone through once under either rules.

Touches are much alike: what rules see of one is made, and judged, once for each shape. A slice runs in the process at
hand or in one of several beside it; those are started anew, know nothing of its connections, and end when it does.
"""

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from multiprocessing.connection import wait
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import asyncpg
import orjson

from services.scoring.engagement.domain import Engagement, Touch
from services.scoring.parts import Parts, make_parts
from services.scoring.people.domain import SEEN, Person, merged_personal, touch_of
from services.scoring.people.handlers import StoredTouch, opened_touches, person_profiles
from services.scoring.people.histories import histories
from services.scoring.people.queries import load_people
from services.scoring.rules.document import RuleSet, rule_set
from services.scoring.rules.replay import Replay, Window
from services.scoring.rules.tally import Change, Outcome, Tally
from services.scoring.stages.domain import Standing, Verdict
from services.scoring.stages.queries import load_stood
from shared.db import Connection, Database
from shared.ids import EventId, LeadId
from shared.service import build_runtime
from shared.settings import Settings

_shape = itemgetter(*SEEN)


@dataclass(frozen=True, slots=True)
class Question:
    """What is simulated on the last days before a moment: a document, beside the version that is active. As JSON."""

    document: bytes
    active: bytes
    version: int
    days: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Trial:
    """A question, compiled.

    `differing` are the ids of the engagement rules by which alone the two rule sets differ; None: by more than that.
    """

    active: RuleSet
    candidate: RuleSet
    window: Window
    now: datetime
    differing: frozenset[str] | None

    def tells_apart(self, touch: Touch) -> bool:
        """Whether the two make something else of a touch, if by engagement rules alone they differ."""
        assert self.differing is not None
        met = (*self.active.engagement.met_by(touch), *self.candidate.engagement.met_by(touch))
        return any(rule.rule_id in self.differing for rule in met)


@lru_cache(maxsize=4)
def trial_of(question: Question) -> Trial:
    """What a question is about, ready to judge."""
    active, candidate = orjson.loads(question.active), orjson.loads(question.document)
    window = Window(question.now, question.days)
    return Trial(
        rule_set(question.version, active), rule_set(0, candidate), window, question.now, differing(active, candidate)
    )


def differing(one: dict[str, Any], other: dict[str, Any]) -> frozenset[str] | None:
    """The ids of the engagement rules by which alone two documents differ; None where they differ by more.

    The order of the others counts: points are added up in it.
    """
    of_one, of_other = one.get("engagement", {}), other.get("engagement", {})
    if one | {"engagement": of_one | {"rules": []}} != other | {"engagement": of_other | {"rules": []}}:
        return None
    rules, others = [{rule["id"]: rule for rule in part.get("rules", ())} for part in (of_one, of_other)]
    differ = {rule_id for rule_id in rules.keys() | others.keys() if rules.get(rule_id) != others.get(rule_id)}
    if [rule_id for rule_id in rules if rule_id not in differ] != [one for one in others if one not in differ]:
        return None
    return frozenset(differ)


async def tally_of(database: Database, parts: Parts, trial: Trial, person_ids: Sequence[LeadId]) -> Tally:
    """What both rule sets make of these people. Reads them as they are at one moment, and writes nothing."""
    tally = Tally()
    async with database.reading() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        people = await load_people(connection, person_ids)
        stood = await load_stood(connection, person_ids)
        personal = await _personal(connection, parts, trial, person_ids)
        versions = {person.rules_version for person in people.values()}
        serving = {version: await parts.rules.at_version(connection, version) for version in versions}
        known = [person_id for person_id in person_ids if person_id in people]
        candidates = [_unborn(trial.candidate, people[one], personal.get(one, {})) for one in known]
        before = [
            Replay(trial.active, trial.window, _unborn(trial.active, people[one], personal.get(one, {})).standing())
            for one in known
        ]
        after = before.copy()  # one and the same, as long as both rule sets make the same of a person
        if trial.differing is None:
            after = [Replay(trial.candidate, trial.window, person.standing()) for person in candidates]
        async for page in histories(connection, known):
            for row, touch in zip(page, await _touches(connection, parts, trial, page), strict=True):
                person = row["person"]
                if after[person] is before[person] and trial.tells_apart(touch):
                    after[person] = before[person].under(trial.candidate)
                before[person].touch(touch)
                if after[person] is not before[person]:
                    after[person].touch(touch)
    for place, one in enumerate(known):
        before[place].end()
        if after[place] is not before[place]:
            after[place].end()
        known_of = stood.get(one)
        verdict, decided = (known_of.verdict, (known_of.decision, known_of.since)) if known_of else (Verdict(), ())
        seen = personal.get(one)
        was = _outcome(serving[people[one].rules_version], people[one].standing(seen, *decided), verdict, trial.now)
        anew = replace(candidates[place], engagement=after[place].engagement)
        would_be = _outcome(trial.candidate, anew.standing(seen, *decided), verdict, trial.now)
        tally.add(Change(one, was, would_be), before[place].spans, after[place].spans, trial.window)
    return tally


def _unborn(rules: RuleSet, person: Person, personal: Mapping[str, Any]) -> Person:
    """The person before any touch, under other rules; what sales made of it stays."""
    seen = {**person.lead, **personal} if rules.reads_personal else person.lead
    return replace(person, rules_version=rules.version, engagement=Engagement(), fit=rules.fit.judge(seen))


def _outcome(rules: RuleSet, standing: Standing, verdict: Verdict, now: datetime) -> Outcome:
    """The numbers at this moment, and the stage as it is decided when rules are switched."""
    after = rules.stages.settle(standing, replace(verdict, reason=""), now)
    score = rules.stages.score(standing, now)
    return Outcome(score.engagement, score.fit, score.total, standing.fit.grade, after.stage, score.named)


async def _personal(
    connection: Connection, parts: Parts, trial: Trial, person_ids: Sequence[LeadId]
) -> dict[LeadId, dict[str, Any]]:
    """What is personal in profiles, if either rule set depends on it."""
    if not (trial.active.reads_personal or trial.candidate.reads_personal):
        return {}
    profiles = await person_profiles(connection, parts, person_ids)
    return {person_id: merged_personal(person_id, known) for person_id, known in profiles.items()}


async def _touches(connection: Connection, parts: Parts, trial: Trial, page: Sequence[asyncpg.Record]) -> list[Touch]:
    """A page of touches as the rules may see them."""
    for rules in (trial.active.engagement, trial.candidate.engagement):
        if rules.reads_properties:
            return await opened_touches(connection, parts, rules, [StoredTouch(row) for row in page])
    return [Touch(row["event_id"], row["occurred_at"], row["type"], _seen(_shape(row))) for row in page]


@lru_cache(maxsize=50_000)
def _seen(shape: tuple[Any, ...]) -> Mapping[str, Any]:
    """What rules see of all touches with these fields."""
    fields = dict(zip(SEEN, shape, strict=True))
    return touch_of(SimpleNamespace(event_id=EventId(""), occurred_at=None, **fields)).seen


@dataclass(frozen=True, slots=True)
class _Process:
    """What a process for slices holds on to: its event loop, and the connections that belong to it."""

    runner: "asyncio.Runner"
    database: Database
    parts: Parts


_own: list[_Process] = []


def begin_process(settings: Settings) -> None:
    """Make this a process for slices; it ends with the one that started it, however that ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runtime = build_runtime("scoring", settings)
    _own.append(_Process(asyncio.Runner(), runtime.database, make_parts(runtime)))


def tally_in_process(question: Question, person_ids: Sequence[LeadId]) -> Tally:
    """The tally of a slice, computed by a process for slices."""
    own = _own[0]
    return own.runner.run(tally_of(own.database, own.parts, trial_of(question), person_ids))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
