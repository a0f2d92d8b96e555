"""A person's score with every point that makes it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from services.scoring.engagement.domain import Contribution, Engagement, EngagementRules, Touch
from services.scoring.parts import Parts
from services.scoring.people.as_of import Kind, view_of
from services.scoring.people.domain import Person
from shared.db import Connection
from shared.events import Grade, Stage
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


class NamedScoreOut(BaseModel):
    """A score beside the main one, at the moment of the call."""

    title: str
    points: float
    limit: int
    groups: list[GroupOut]
    contributions: list[ContributionOut]
    earlier_contributions: Earlier


class ScoreOut(BaseModel):
    """A lead's score at `as_of`, the moment of the call or another. Points above the limit of a group do not count.

    `kind` says whether that is the past, as event time has it, the present, or what time alone will make of it.
    `returns_at` is when a lead that was set aside comes back at the latest.
    """

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
    returns_at: datetime | None
    scores: dict[str, NamedScoreOut]
    as_of: datetime
    kind: Kind


async def explained_score(
    connection: Connection, parts: Parts, lead_id: LeadId, as_of: datetime | None = None
) -> ScoreOut:
    """The score of the person behind an id, now or as of an instant. Raises NoSuchLead. Needs a transaction."""
    view = await view_of(connection, parts, lead_id, as_of)
    person, rules, place = view.person, view.rules, view.place
    score = rules.stages.score(person.standing(), view.at)
    moment = person.engagement.moment(view.at)  # touches that meet no rule are not in the view
    newest, earlier = _paid(rules.engagement, view.touches, moment)
    return ScoreOut(
        lead_id=person.person_id,
        engagement=score.engagement,
        fit=score.fit,
        total=score.total,
        grade=person.fit.grade,
        stage=place.stage,
        rules_version=rules.version,
        contributions=[*_fit(person), *newest],
        earlier_contributions=earlier,
        groups=_groups(rules.engagement, person.engagement, view.at),
        limit=rules.engagement.limit,
        hand_raise=score.hand_raise,
        furthest_stage=place.furthest,
        stage_since=place.since,
        stage_reason=place.reason,
        returns_at=place.returns_at,
        scores={
            score_id: _named(rules.titles[score_id], beside, person.engagement.of(score_id), view.touches, moment)
            for score_id, beside in rules.engagement.named.items()
        },
        as_of=view.at,
        kind=view.kind,
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


def _groups(rules: EngagementRules, engagement: Engagement, now: datetime) -> list[GroupOut]:
    return [
        GroupOut(group=name, points=points, limit=rules.groups.get(name))
        for name, points in sorted(rules.by_group(engagement, now).items())
    ]


def _paid(rules: EngagementRules, touches: Sequence[Touch], now: datetime) -> tuple[list[ContributionOut], Earlier]:
    """What was paid, the newest first, and the sum of what is too much to list."""
    paid = rules.contributions(touches, now)
    earlier = paid[:-MOST] if len(paid) > MOST else []
    rest = Earlier(count=len(earlier), points=round(sum(one.points for one in earlier), 6))
    return [_engagement(one) for one in reversed(paid[-MOST:])], rest


def _named(
    title: str, rules: EngagementRules, engagement: Engagement, touches: Sequence[Touch], now: datetime
) -> NamedScoreOut:
    newest, earlier = _paid(rules, touches, now)
    return NamedScoreOut(
        title=title,
        points=rules.value(engagement, now),
        limit=rules.limit,
        groups=_groups(rules, engagement, now),
        contributions=newest,
        earlier_contributions=earlier,
    )
