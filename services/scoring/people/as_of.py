"""A person as of an instant: as event time has it in the past, as they are, and as time alone will make of them.

In the past what had happened until then counts, whenever it was heard of, of all ids that are the person's today, under
the rules that were active then; stages are those that were decided. In the future nothing else happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Literal

from services.scoring.decisions.domain import SET_ASIDE, further
from services.scoring.engagement.domain import Day, DayKey, Engagement, Touch
from services.scoring.errors import NoSuchLead
from services.scoring.parts import Parts
from services.scoring.people import queries
from services.scoring.people.domain import Person, merged_personal, nobody, refitted
from services.scoring.people.handlers import past_profiles, person_profiles, touches_of_person
from services.scoring.rules.document import RuleSet
from services.scoring.stages.domain import FIRST, Standing, Verdict
from services.scoring.stages.queries import Stood, load_stood, stages_until
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.events import Stage
from shared.identity import resolve
from shared.ids import LeadId

AHEAD = timedelta(days=3_660)
_MOST_STEPS = 1_000

Kind = Literal["past", "present", "future"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a person stands: the stage, since when and why, the furthest ever, and when they return if set aside."""

    stage: Stage = FIRST
    furthest: Stage = FIRST
    since: datetime | None = None
    reason: str = ""
    returns_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A person as of an instant. `touches` are those that meet a rule, in time order."""

    kind: Kind
    at: datetime
    person: Person
    rules: RuleSet
    touches: Sequence[Touch]
    place: Place


async def view_of(connection: Connection, parts: Parts, lead_id: LeadId, as_of: datetime | None) -> View:
    """The person behind an id, now or as of an instant. Raises NoSuchLead, Invalid. Needs a transaction."""
    now = await parts.present(connection)
    person_id = await resolve(connection, lead_id)
    person = (await queries.load_people(connection, [person_id])).get(person_id)
    if person is None:
        raise NoSuchLead(f"nothing was told here about a lead {lead_id[:100]}")
    if as_of is not None and as_of > now + AHEAD:
        detail = f"lies more than {AHEAD.days} days ahead"
        raise Invalid("look at query:as_of", [FieldError("query:as_of", detail)])
    if as_of is not None and as_of < now:
        return await _past(connection, parts, person, as_of)
    rules = await parts.rules.at_version(connection, person.rules_version)
    touches = await _touches(connection, parts, rules, person_id)
    stood = (await load_stood(connection, [person_id])).get(person_id, Stood(person_id, Verdict()))
    personal = None
    if rules.stages_read_personal:
        profiles = await person_profiles(connection, parts, [person_id])
        personal = merged_personal(person_id, profiles.get(person_id, []))
    standing = person.standing(personal, stood.decision, stood.since)
    place = _placed(rules, standing, stood)
    if as_of is None or as_of == now:
        return View("present", now, person, rules, touches, place)
    return View("future", as_of, person, rules, touches, _ahead(rules, standing, stood, now, as_of))


def _placed(rules: RuleSet, standing: Standing, stood: Stood) -> Place:
    stage = stood.verdict.stage
    returns_at = rules.stages.returns_at(standing) if stage in SET_ASIDE else None
    return Place(stage, stood.furthest, stood.since, stood.verdict.reason, returns_at)


def _ahead(rules: RuleSet, standing: Standing, stood: Stood, now: datetime, until: datetime) -> Place:
    """Where the person will stand if nothing happens: judged now, then wherever something turns."""
    if stood.erased:
        return Place()
    first = last = rules.stages.arrive(standing, stood.verdict, now)
    furthest, stage, since = stood.furthest, stood.verdict.stage, stood.since
    coming = rules.stages.steps(first.standing, first.verdict, now, until)
    for last in islice(chain([first], coming), _MOST_STEPS):
        if last.verdict.stage != stage:
            stage, since, furthest = last.verdict.stage, last.at, further(furthest, last.verdict.stage)
    returns_at = rules.stages.returns_at(last.standing) if stage in SET_ASIDE else None
    return Place(stage, furthest, since, last.verdict.reason, returns_at)


async def _past(connection: Connection, parts: Parts, person: Person, at: datetime) -> View:
    version = await parts.rules.store.version_at(connection, at) or person.rules_version
    rules = await parts.rules.at_version(connection, version)
    person_id = person.person_id
    touches: list[Touch] = []
    engagement, days = Engagement(), dict[DayKey, Day]()

    def add(page: list[Touch]) -> None:
        nonlocal engagement
        happened = [touch for touch in page if touch.occurred_at <= at]
        engagement, changed = rules.engagement.fold(engagement, days, happened)
        days.update(changed)
        touches.extend(touch for touch in happened if rules.engagement.counts(touch))

    await touches_of_person(connection, parts, rules.engagement, person_id, add)
    profiles = await past_profiles(connection, parts, person_id, at, opening=rules.reads_personal)
    if engagement.newest is None and not profiles:
        raise NoSuchLead(f"nothing had happened with the lead by {at.isoformat()}")
    consents = await queries.consents_at(connection, person_id, at)
    rejected = person.sales.rejected_at
    sales = replace(person.sales, rejected_at=rejected if rejected is not None and rejected <= at else None)
    then = replace(nobody(person_id, rules), engagement=engagement, sales=sales)
    place = await _stood_at(connection, person_id, at)
    return View("past", at, refitted(then, rules, profiles, consents), rules, touches, place)


async def _stood_at(connection: Connection, person_id: LeadId, at: datetime) -> Place:
    """Where the person stood. The furthest stage is that of all who are the person today; who has only become so later
    also says where the person stood, until the survivor's own word.
    """
    place, furthest = Place(), FIRST
    for row in await stages_until(connection, person_id, at):
        furthest = further(furthest, row["stage"])
        if row["merged_at"] is None or row["merged_at"] > at:
            place = Place(row["stage"], FIRST, row["at"], row["reason"], row["until"])
    return replace(place, furthest=furthest)


async def _touches(connection: Connection, parts: Parts, rules: RuleSet, person_id: LeadId) -> list[Touch]:
    touches: list[Touch] = []

    def keep(page: list[Touch]) -> None:
        touches.extend(touch for touch in page if rules.engagement.counts(touch))

    await touches_of_person(connection, parts, rules.engagement, person_id, keep)
    return touches
