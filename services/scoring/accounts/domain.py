"""What the people of an account come to: its engagement, its fit, and when that could next change by decay alone.

Engagement is added up over people, since a purchase is a group's; a limit, or counting only the most engaged, keeps
a large account from leading by its size. Fit is the best there is: one person who fits is enough to talk to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import exp2
from typing import Literal

from services.scoring.engagement.decay import micros
from services.scoring.engagement.domain import Engagement
from services.scoring.fit.domain import Fit
from shared.events import Grade
from shared.ids import AccountId, LeadId

Way = Literal["sum", "top", "max"]
FitWay = Literal["best", "people", "account"]
HORIZON = timedelta(days=20 * 365)
_STEPS = 60
_FINEST = 10_000


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How people are added up: all of them, the `top` most engaged, or the most engaged alone; up to `limit`.

    A person is engaged from `engaged_from` points on; with fewer than `min_people` of these the engagement counts for
    nothing. `children` says that accounts below count with it.
    """

    engagement: Way = "sum"
    top: int = 5
    limit: int = 1_000
    engaged_from: float = 10.0
    min_people: int = 0
    children: bool = True
    fit: FitWay = "best"

    @property
    def most(self) -> int | None:
        """How many people count at most."""
        match self.engagement:
            case "sum":
                return None
            case "top":
                return self.top
            case "max":
                return 1


@dataclass(frozen=True, slots=True)
class Company:
    """An account as it was told last."""

    account_id: AccountId
    revision: int
    parent_id: AccountId | None = None
    merged_into: AccountId | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    country: str | None = None

    def as_lead(self) -> dict[str, str | int]:
        """What fit rules see of it: the fields that a lead has too."""
        names = ("industry", "employees", "annual_revenue", "country")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Member:
    """A person of an account or of one below it, at a moment. Who is excluded (grade F) counts for nothing."""

    person_id: LeadId
    account_id: AccountId
    engagement: float
    fit: Fit
    sums: Engagement

    @property
    def counts(self) -> bool:
        """Whether the person is somebody to sell to at all."""
        return self.fit.grade != "F"


@dataclass(frozen=True, slots=True)
class AccountScore:
    """What an account comes to at a moment, and what each person gives to it, the most first.

    `raw` is the engagement before the limit. `fit_from` is the person whose fit is the account's; None when it is that
    of the account's own fields, or there is none.
    """

    at: datetime
    engagement: float
    raw: float
    fit: Fit
    fit_from: LeadId | None
    own_fit: Fit
    given: tuple[tuple[Member, float], ...]
    engaged_people: int
    enough_people: bool

    @property
    def total(self) -> float:
        """Engagement and fit."""
        return round(self.engagement + self.fit.points, 6)

    @property
    def whole(self) -> tuple[int, Grade]:
        """What others are told of: whole points and the grade."""
        return round(self.total), self.fit.grade


def account_score(rules: AccountRules, members: Iterable[Member], own_fit: Fit, at: datetime) -> AccountScore:
    """Add people up. `own_fit` is the fit of the account's own fields."""
    ranked = sorted(members, key=lambda one: (not one.counts, -one.engagement, one.person_id))
    counting = [one for one in ranked if one.counts]
    engaged = sum(one.engagement >= rules.engaged_from for one in counting)
    enough = engaged >= rules.min_people
    most = len(counting) if rules.most is None else rules.most
    given = tuple(
        (one, one.engagement if enough and place < most and one.counts else 0.0) for place, one in enumerate(ranked)
    )
    raw = round(sum(points for _, points in given), 6)
    fit, fit_from = _fit(rules, ranked, own_fit)
    return AccountScore(at, min(raw, float(rules.limit)), raw, fit, fit_from, own_fit, given, engaged, enough)


def next_look(rules: AccountRules, score: AccountScore) -> datetime | None:
    """When decay could next change what others are told, at the earliest; None: never.

    A sum of decaying points cannot move further than all of its terms decay; limits only slow that. So that a slow
    approach does not take endless looks, one comes up to a ten-thousandth of the shortest half-life later.
    """
    whole, _ = score.whole
    counted = [member for member, points in score.given if points]
    rising = any(total.mantissa < 0 for member, _ in score.given for total in member.sums.sums.values())
    down = score.total - (whole - 0.5) + (score.raw - score.engagement)
    room = min(down, whole + 0.5 - score.total) if rising else down
    everybody = [member for member, _ in score.given]
    spans = [_span(_terms(everybody if rising else counted, score.at), room)]
    if rules.min_people:
        spans += [
            _span(_terms([one], score.at), abs(one.engagement - rules.engaged_from))
            for one in everybody
            if rising or one.engagement >= rules.engaged_from
        ]
    nearest = min((span for span in spans if span is not None), default=None)
    if nearest is None:
        return None
    return score.at + timedelta(microseconds=max(nearest, min(_terms(everybody, score.at)) // _FINEST, 1_000))


def _fit(rules: AccountRules, ranked: Sequence[Member], own_fit: Fit) -> tuple[Fit, LeadId | None]:
    """The best fit of those that count; F when there are people and none of them does."""
    if rules.fit == "account":
        return own_fit, None
    counting = [one for one in ranked if one.counts]
    best = max(counting, key=lambda one: (one.fit.points, one.person_id), default=None)
    if best is not None and (rules.fit == "people" or own_fit.grade == "F" or best.fit.points >= own_fit.points):
        return best.fit, best.person_id
    if rules.fit == "people" or own_fit.grade == "F":
        return (ranked[0].fit, ranked[0].person_id) if ranked else (own_fit, None)
    return own_fit, None


def _terms(members: Iterable[Member], at: datetime) -> Mapping[int, float]:
    """How much there is to decay, by half-life in microseconds."""
    terms: dict[int, float] = {}
    for member in members:
        moment = micros(member.sums.moment(at))
        for bucket, total in member.sums.sums.items():
            terms[bucket.half_life] = terms.get(bucket.half_life, 0.0) + abs(total.value(moment, bucket.half_life))
    return terms


def _span(terms: Mapping[int, float], room: float) -> int | None:
    """How many microseconds until so much has decayed; None when less than that ever will."""

    def decayed(span: int) -> float:
        return sum(points * (1 - exp2(-span / half_life)) for half_life, points in terms.items())

    low, high = 0, HORIZON // timedelta(microseconds=1)
    if not terms or decayed(high) < room:
        return None
    for _ in range(_STEPS):
        middle = (low + high) // 2
        if decayed(middle) < room:
            low = middle
        else:
            high = middle
    return high
