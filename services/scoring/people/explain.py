"""A person's score with every point that makes it."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from services.scoring.engagement.domain import Contribution, Touch
from services.scoring.errors import NoSuchLead
from services.scoring.parts import Parts
from services.scoring.people.domain import Person
from services.scoring.people.handlers import touches_of_person
from services.scoring.people.queries import load_people
from services.scoring.rules.document import RuleSet
from services.scoring.stages.queries import load_stood
from shared.db import Connection
from shared.events import Grade, Stage
from shared.identity import resolve
from shared.ids import EventId, LeadId

MOST = 1_000


class ContributionOut(BaseModel):
    """One match of a rule: what it is worth now, what it was worth when it happened, and the fact that made it."""

    rule_id: str
    kind: Literal["engagement", "fit"]
    points: float
    awarded: int
    occurred_at: datetime | None
    event_id: EventId | None


class GroupOut(BaseModel):
    """What a group's rules give together, and the most that counts of it."""

    group: str
    points: float
    limit: int | None


class Earlier(BaseModel):
    """Contributions that are too many to list: how many, and what they are worth together."""

    count: int
    points: float


class ScoreOut(BaseModel):
    """A lead's score at the moment of the call. Points of a group, or of all, above a limit do not count."""

    lead_id: LeadId
    engagement: float
    fit: int
    total: float
    grade: Grade
    stage: Stage
    rules_version: int
    contributions: list[ContributionOut]
    earlier_contributions: Earlier
    groups: list[GroupOut]
    limit: int
    hand_raise: bool
    furthest_stage: Stage
    stage_since: datetime | None
    stage_reason: str
    as_of: datetime


async def explained_score(connection: Connection, parts: Parts, lead_id: LeadId) -> ScoreOut:
    """The score of the person behind an id. Raises NoSuchLead. Needs a transaction."""
    person_id = await resolve(connection, lead_id)
    people = await load_people(connection, [person_id])
    if person_id not in people:
        raise NoSuchLead(f"nothing was told here about a lead {lead_id[:100]}")
    person = people[person_id]
    rules = await parts.rules.at_version(connection, person.rules_version)
    stood = (await load_stood(connection, [person_id])).get(person_id)
    touches: list[Touch] = []

    def keep(page: list[Touch]) -> None:
        touches.extend(touch for touch in page if rules.engagement.met_by(touch))

    await touches_of_person(connection, parts, rules.engagement, person_id, keep)
    now = parts.clock.now()
    score = rules.stages.score(person.standing(), now)
    paid = rules.engagement.contributions(touches, now)
    earlier = paid[:-MOST] if len(paid) > MOST else []
    by_group = rules.engagement.by_group(person.engagement, now)
    return ScoreOut(
        lead_id=person_id,
        engagement=score.engagement,
        fit=score.fit,
        total=score.total,
        grade=person.fit.grade,
        stage=stood.verdict.stage if stood else "subscriber",
        rules_version=person.rules_version,
        contributions=[*_fit(person), *(_engagement(one) for one in reversed(paid[-MOST:]))],
        earlier_contributions=Earlier(count=len(earlier), points=round(sum(one.points for one in earlier), 6)),
        groups=[_group(rules, name, points) for name, points in sorted(by_group.items())],
        limit=rules.engagement.limit,
        hand_raise=score.hand_raise,
        furthest_stage=stood.furthest if stood else "subscriber",
        stage_since=stood.since if stood else None,
        stage_reason=stood.verdict.reason if stood else "",
        as_of=now,
    )


def _fit(person: Person) -> list[ContributionOut]:
    event_id, occurred_at = person.fit_from or (None, None)
    return [
        ContributionOut(
            rule_id=rule_id,
            kind="fit",
            points=points,
            awarded=points,
            occurred_at=occurred_at,
            event_id=event_id,
        )
        for rule_id, points in person.fit.rules
    ]


def _engagement(one: Contribution) -> ContributionOut:
    return ContributionOut(
        rule_id=one.rule_id,
        kind="engagement",
        points=one.points,
        awarded=one.awarded,
        occurred_at=one.occurred_at,
        event_id=one.event_id,
    )


def _group(rules: RuleSet, name: str, points: float) -> GroupOut:
    return GroupOut(group=name, points=points, limit=rules.engagement.groups.get(name))
