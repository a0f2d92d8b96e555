"""A slice of people, simulated: read in a few statements, each person's past gone through once under either rules.

Touches are much alike: what rules see of one is made, and judged, once for each shape. A slice runs in the process at
hand or in one of several beside it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import orjson

from services.scoring.engagement.decay import EPOCH, micros
from services.scoring.engagement.domain import Touch
from services.scoring.parts import Parts, make_parts
from services.scoring.people.domain import SEEN, merged_personal, touch_of
from services.scoring.people.handlers import StoredTouch, opened_touches, person_profiles
from services.scoring.people.histories import histories
from services.scoring.people.queries import load_people
from services.scoring.rules.document import RuleSet, rule_set
from services.scoring.rules.queries import TOUCH_FIELDS, pasts
from services.scoring.rules.replay import Replay, Window
from services.scoring.rules.tally import Change, Outcome, Tally
from services.scoring.rules.tariff import Payment, Tariff
from services.scoring.stages.domain import Standing, Verdict
from services.scoring.stages.queries import load_stood
from shared.db import Connection, Database, have_patience
from shared.ids import EventId, LeadId
from shared.service import build_runtime
from shared.settings import Settings

_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is simulated on the last days before a moment: a document, beside the version that is active. As JSON."""

    document: bytes
    active: bytes
    version: int
    days: int
    now: datetime


class Sight(NamedTuple):
    """A touch as both rule sets see it: its type, None of a machine's, and what it pays under either.

    `apart` says that, where they differ by engagement rules alone, it meets one of those.
    """

    kind: str | None
    active: tuple[Payment, ...]
    candidate: tuple[Payment, ...]
    apart: bool


class Trial:
    """A question, compiled.

    `differing` are the ids of the engagement rules by which alone the two rule sets differ; None: by more than that.
    """

    def __init__(
        self, active: RuleSet, candidate: RuleSet, window: Window, now: datetime, apart: frozenset[str] | None
    ):
        self.active = active
        self.candidate = candidate
        self.window = window
        self.now = now
        self.differing = apart
        self.tariffs = Tariff(active), Tariff(candidate)
        both = active.engagement, candidate.engagement
        self.reads_properties = any(rules.reads_properties for rules in both)
        read = frozenset().union(*(rules.reads for rules in both))
        self.fields = tuple(name for name in TOUCH_FIELDS if name in read or (name == "page" and "path" in read))
        shortest = [
            min((one.half_life for rule in tariff.scores for one in rule.buckets), default=0) for tariff in self.tariffs
        ]
        self.judges_alike = apart is not None and shortest[0] == shortest[1]
        """Whether both judge whoever has the same engagement alike."""
        self._known: OrderedDict[tuple[Any, ...], Sight] = OrderedDict()

    def sight(self, touch: Touch) -> Sight:
        """What both make of a touch."""
        active, candidate = (tariff.of(touch) for tariff in self.tariffs)
        differing = self.differing or ()
        apart = any(not one.score and one.rule_id in differing for one in (*active, *candidate))
        return Sight(None if touch.automated else touch.type, active, candidate, apart)

    def sight_of(self, shape: tuple[Any, ...]) -> Sight:
        """The same of all touches with this type, told of a machine or not, and with these fields."""
        known = self._known.get(shape)
        if known is None:
            kind, automated, *told = shape
            fields = {**dict.fromkeys(SEEN), **dict(zip(self.fields, told, strict=True))}
            fields |= {"type": kind, "automated": automated, "event_id": EventId(""), "occurred_at": EPOCH}
            known = self._known[shape] = self.sight(touch_of(SimpleNamespace(**fields)))
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known


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
        await have_patience(connection)
        people = await load_people(connection, person_ids)
        stood = await load_stood(connection, person_ids)
        personal = await _personal(connection, parts, trial, person_ids)
        versions = {person.rules_version for person in people.values()}
        serving = {version: await parts.rules.at_version(connection, version) for version in versions}
        known = [person_id for person_id in person_ids if person_id in people]
        standings = [people[one].standing(personal.get(one)) for one in known]
        replays = [_replays(trial, standing) for standing in standings]
        async for page in _sights(connection, parts, trial, known):
            for place, at, sight in page:
                before, after = replays[place]
                if before is after and sight.apart:
                    after = before.under(trial.tariffs[1])
                    replays[place] = before, after
                before.touch(at, sight.kind, sight.active)
                if after is not before:
                    after.touch(at, sight.kind, sight.candidate)
    for one, (before, after) in zip(known, replays, strict=True):
        before.end()
        if after is not before:
            after.end()
        known_of = stood.get(one)
        verdict, decided = (known_of.verdict, (known_of.decision, known_of.since)) if known_of else (Verdict(), ())
        seen, person = personal.get(one), people[one]
        standing = person.standing(seen, *decided)
        stands = known_of is not None and (known_of.due is None or trial.now < known_of.due.at)
        was = would_be = _outcome(serving[person.rules_version], standing, verdict, trial.now, stands=stands)
        anew = replace(person, engagement=after.engagement(), fit=after.fit)
        same = trial.judges_alike and person.rules_version == trial.active.version
        if not (same and after is before and anew.engagement == person.engagement and anew.fit == person.fit):
            would_be = _outcome(trial.candidate, anew.standing(seen, *decided), verdict, trial.now)
        tally.add(Change(one, was, would_be), before.spans, after.spans, trial.window)
    tally.trim()
    return tally


def _replays(trial: Trial, standing: Standing) -> tuple[Replay, Replay]:
    """The person before any touch under both: one and the same, as long as both rule sets make the same of it."""
    before, after = trial.tariffs
    one = Replay(before, trial.window, trial.active.fit.judge(standing.lead), standing.lead)
    if trial.differing is not None:
        return one, one
    return one, Replay(after, trial.window, trial.candidate.fit.judge(standing.lead), standing.lead)


def _outcome(rules: RuleSet, standing: Standing, verdict: Verdict, now: datetime, *, stands: bool = False) -> Outcome:
    """The numbers now, and the stage: the one that `stands`, else as it is decided when rules are switched."""
    after = verdict if stands else rules.stages.settle(standing, replace(verdict, reason=""), now)
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


async def _sights(
    connection: Connection, parts: Parts, trial: Trial, known: Sequence[LeadId]
) -> AsyncIterator[list[tuple[int, int, Sight]]]:
    """Touches in pages, person by person, the earliest first: whose (its place), when, and as both rule sets see it."""
    if not trial.reads_properties:
        async for rows in pasts(connection, known, trial.fields):
            yield [(row[0], micros(row[1]), trial.sight_of(row[2:])) for row in rows]
        return
    rules = next(one for one in (trial.active.engagement, trial.candidate.engagement) if one.reads_properties)
    async for page in histories(connection, known):
        touches = await opened_touches(connection, parts, rules, [StoredTouch(row) for row in page])
        yield [
            (row["person"], micros(touch.occurred_at), trial.sight(touch))
            for row, touch in zip(page, touches, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Process:
    """What a process for slices holds on to: its event loop, and the connections that belong to it."""

    runner: "asyncio.Runner"
    database: Database
    parts: Parts


_own: list[_Process] = []


def begin_process(settings: Settings) -> None:
    """Make this a process for slices."""
    runtime = build_runtime("scoring", settings)
    _own.append(_Process(asyncio.Runner(), runtime.database, make_parts(runtime)))


def tally_in_process(question: Question, person_ids: Sequence[LeadId]) -> Tally:
    """The tally of a slice, computed by a process for slices."""
    own = _own[0]
    tally = own.runner.run(tally_of(own.database, own.parts, trial_of(question), person_ids))
    own.parts.keys.forget_all()  # nobody comes up again: keys at hand would take memory with everybody gone through
    return tally
