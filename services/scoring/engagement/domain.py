"""Engagement: points for what a person did. They decay, are limited by day, group and in total, and need no order.

The state is a fold that any order of arrival brings to the same value: sums of decaying points, the newest moment,
the moment of the last raised hand, and, for rules with a limit, the earliest matches of each day, since those are the
ones that are paid.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from services.scoring.engagement.contacts import NO_CONTACTS, Contacts
from services.scoring.engagement.decay import EPOCH, Decaying, micros
from shared.ids import EventId
from shared.rules import Evaluation, Expression

EVER = date(1, 1, 1)
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Rule:
    """Points for each touch that meets the condition. `half_life` is in microseconds.

    `score` is the named score that they count for; empty for engagement itself.
    """

    rule_id: str
    when: Expression
    points: int
    half_life: int
    group: str = ""
    per_day: int | None = None
    once: bool = False
    hand_raise: bool = False
    score: str = ""

    @property
    def most(self) -> int | None:
        """The most points, without sign, that a day pays (or, for `once`, that are ever paid)."""
        if self.once:
            return min(abs(self.points), self.per_day or abs(self.points))
        return self.per_day

    def day_of(self, at: datetime) -> "DayKey":
        """The limit that a match falls under; ids of rules are unique within a score."""
        name = f"{self.score}/{self.rule_id}" if self.score else self.rule_id
        return DayKey(name, EVER if self.once else at.astimezone(UTC).date())

    def paid(self, place: int) -> int:
        """Points of the match at this place of its day's matches, the earliest being 0."""
        if self.most is None:
            return self.points
        size = abs(self.points)
        left = min(size, max(0, self.most - place * size))
        return left if self.points > 0 else -left

    @property
    def payable(self) -> int:
        """How many matches of a day are paid, fully or in part, when there is a limit."""
        return -(-(self.most or 0) // abs(self.points))


@dataclass(frozen=True, slots=True)
class Touch:
    """A touch as the engagement rules may see it."""

    event_id: EventId
    occurred_at: datetime
    type: str
    seen: Mapping[str, Any]

    @property
    def automated(self) -> bool:
        """Whether a machine made it."""
        return bool(self.seen.get("automated"))


class Mark(NamedTuple):
    """A match's place in time: matches of one day are paid in this order."""

    at: int
    event_id: str


class DayKey(NamedTuple):
    """What a limit applies to."""

    rule_id: str
    day: date


@dataclass(frozen=True, slots=True)
class Day:
    """The paid matches of a rule's day, earliest first, and whether there were more than are paid."""

    paid: tuple[Mark, ...] = ()
    more: bool = False


class Bucket(NamedTuple):
    """What can be summed: points under one group limit that decay equally fast."""

    group: str
    half_life: int


Sums = Mapping[Bucket, Decaying]


@dataclass(frozen=True, slots=True)
class Engagement:
    """What is remembered of everything a person did. `types` are the types of touches there ever were, by people.

    `named` are the sums of the scores that the document names beside engagement, those that anything was given for.
    """

    sums: Sums = field(default_factory=dict)
    newest: datetime | None = None
    raised_at: datetime | None = None
    raised_until: datetime | None = None
    types: frozenset[str] = frozenset()
    named: Mapping[str, Sums] = field(default_factory=dict)
    contacts: Contacts = NO_CONTACTS

    def of(self, score_id: str) -> "Engagement":
        """What is remembered for a named score, to be valued by the rules of that score."""
        return Engagement(self.named.get(score_id, {}), self.newest)

    def moment(self, at: datetime) -> datetime:
        """`at`, or the newest touch when that is still to come: before it the sums mean nothing."""
        return at if self.newest is None else max(at, self.newest)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one match gives: `points` are what it is worth at the moment asked for, `awarded` what it gave at first."""

    rule_id: str
    points: float
    awarded: int
    occurred_at: datetime
    event_id: EventId


class EngagementRules:
    """The engagement part of a rule set. Remembers which rules met which fields, since touches are much alike.

    `named` are the rules of the scores beside it, by their ids; they are folded along.
    """

    def __init__(  # noqa: PLR0913  # what a score is made of
        self,
        rules: Sequence[Rule],
        groups: Mapping[str, int],
        limit: int,
        named: "Mapping[str, EngagementRules] | None" = None,
        *,
        attempts: frozenset[str] = frozenset(),
        connections: frozenset[str] = frozenset(),
    ) -> None:
        self.rules = tuple(rules)
        self._attempts = attempts
        self._connections = connections
        self._contacts = attempts | connections
        self.groups = dict(groups)
        self.limit = limit
        self.named = dict(named or {})
        self.reads_properties: bool = any(rule.when.reads("event", "properties") for rule in rules) or any(
            one.reads_properties for one in self.named.values()
        )
        self._of_machines = tuple(rule for rule in self.rules if rule.when.reads("event", "automated"))
        self._fields = sorted({"automated", *(path[1] for rule in rules for path in rule.when.references)})
        self._known: OrderedDict[tuple[Any, ...], tuple[Rule, ...]] = OrderedDict()

    def met_by(self, touch: Touch) -> tuple[Rule, ...]:
        """The rules whose condition the touch meets. A machine's meets only those that ask whether it is one."""
        if self.reads_properties:
            return self._evaluate(touch)
        key = tuple([touch.seen.get(name) for name in self._fields])
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._evaluate(touch)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _evaluate(self, touch: Touch) -> tuple[Rule, ...]:
        evaluation = Evaluation({"event": touch.seen})
        rules = self._of_machines if touch.automated else self.rules
        return tuple(rule for rule in rules if rule.when.holds(evaluation)[0])

    @property
    def reads(self) -> frozenset[str]:
        """The fields of touches that some condition reads, those of the named scores too."""
        return frozenset(self._fields).union(*(one.reads for one in self.named.values()))

    @property
    def contact_types(self) -> tuple[frozenset[str], frozenset[str]]:
        """The types of touches that are attempts to reach a person, and those that say somebody was connected."""
        return self._attempts, self._connections

    def counts(self, touch: Touch) -> bool:
        """Whether the touch meets any rule, of the named scores too."""
        return bool(self.met_by(touch)) or any(one.met_by(touch) for one in self.named.values())

    def days_of(self, touches: Sequence[Touch]) -> set[DayKey]:
        """The limited days that these touches fall into, whose state `fold` needs."""
        found = {
            rule.day_of(touch.occurred_at) for touch in touches for rule in self.met_by(touch) if rule.most is not None
        }
        return found.union(*(one.days_of(touches) for one in self.named.values()))

    def fold(
        self, before: Engagement, days: Mapping[DayKey, Day], touches: Sequence[Touch]
    ) -> tuple[Engagement, dict[DayKey, Day]]:
        """The state with touches that it did not hold before, and those of the days that changed."""
        sums = dict(before.sums)
        changed: dict[DayKey, Day] = {}
        newest, raised_at, raised_until = before.newest, before.raised_at, before.raised_until
        for touch in touches:
            newest = _later(newest, touch.occurred_at)
            for rule in self.met_by(touch):
                mark = Mark(micros(touch.occurred_at), touch.event_id)
                if rule.most is None:
                    _add(sums, rule, Decaying.term(rule.points, mark.at, rule.half_life))
                else:
                    key = rule.day_of(touch.occurred_at)
                    day = changed.get(key) or days.get(key) or Day()
                    changed[key] = _admit(sums, rule, day, mark)
                if rule.hand_raise:
                    raised_at = _later(raised_at, touch.occurred_at)
                    raised_until = _later(raised_until, touch.occurred_at + _standing(rule))
        types = before.types | {touch.type for touch in touches if not touch.automated}
        named = dict(before.named)
        for score_id, rules in self.named.items():
            beside, days_beside = rules.fold(before.of(score_id), days, touches)
            named[score_id] = beside.sums
            changed |= days_beside
        kept = {name: one for name, one in named.items() if one}
        contacts = self._contacted(before.contacts, touches)
        after = Engagement(sums, newest, raised_at, raised_until, types, kept, contacts)
        return after, {key: day for key, day in changed.items() if day != days.get(key)}

    def _contacted(self, before: Contacts, touches: Sequence[Touch]) -> Contacts:
        found = [touch for touch in touches if touch.type in self._contacts and not touch.automated]
        if not found:
            return before
        return before.with_more(
            [micros(touch.occurred_at) for touch in found if touch.type in self._connections],
            [micros(touch.occurred_at) for touch in found if touch.type in self._attempts],
        )

    def value(self, engagement: Engagement, at: datetime) -> float:
        """Points at a moment: groups limited, then the whole, at least 0; exact to six decimals."""
        return self.value_at(engagement, micros(engagement.moment(at)))

    def value_at(self, engagement: Engagement, at: int) -> float:
        """The same at a moment in microseconds that is not before the newest touch."""
        return round(min(max(self._whole(engagement, at), 0.0), float(self.limit)), 6)

    def named_values(self, engagement: Engagement, at: datetime) -> dict[str, float]:
        """The points of each named score at a moment."""
        return {score_id: rules.value(engagement.of(score_id), at) for score_id, rules in self.named.items()}

    def by_group(self, engagement: Engagement, at: datetime) -> dict[str, float]:
        """Points of each group before its limit; the name of what is in no group is empty."""
        return {
            name: round(points, 6) for name, points in self._groups(engagement, micros(engagement.moment(at))).items()
        }

    def _groups(self, engagement: Engagement, at: int) -> dict[str, float]:
        totals: dict[str, float] = {}
        for bucket, total in engagement.sums.items():
            totals[bucket.group] = totals.get(bucket.group, 0.0) + total.value(at, bucket.half_life)
        return totals

    def _whole(self, engagement: Engagement, at: int) -> float:
        return sum(
            min(points, self.groups[name]) if name in self.groups else points
            for name, points in sorted(self._groups(engagement, at).items())
        )

    def contributions(self, touches: Iterable[Touch], at: datetime) -> list[Contribution]:
        """Every match that is paid, in time order, out of all touches of a person."""
        ordered = sorted(touches, key=lambda touch: (touch.occurred_at, touch.event_id))
        moment = max([at, *(touch.occurred_at for touch in ordered[-1:])])
        places: dict[DayKey, int] = {}
        found = []
        for touch in ordered:
            for rule in self.met_by(touch):
                key = rule.day_of(touch.occurred_at)
                place = places[key] = places.get(key, -1) + 1
                if awarded := rule.paid(place):
                    worth = Decaying.term(awarded, micros(touch.occurred_at), rule.half_life)
                    points = round(worth.value(micros(moment), rule.half_life), 6)
                    found.append(Contribution(rule.rule_id, points, awarded, touch.occurred_at, touch.event_id))
        return found


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _standing(rule: Rule) -> timedelta:
    """How long a raised hand stands. Half its half-life: until then 50 points stay above the 35 that end an MQL."""
    return timedelta(microseconds=rule.half_life // 2)


def _add(sums: dict[Bucket, Decaying], rule: Rule, term: Decaying) -> None:
    bucket = Bucket(rule.group, rule.half_life)
    total = sums.get(bucket, Decaying()) + term
    if total.mantissa:
        sums[bucket] = total
    else:
        sums.pop(bucket, None)


def _admit(sums: dict[Bucket, Decaying], rule: Rule, day: Day, mark: Mark) -> Day:
    """A day with one more match; the sums change by what it, and those it pushes back, are paid now."""
    if mark in day.paid:
        return day
    if len(day.paid) >= rule.payable and mark > day.paid[-1]:
        return day if day.more else replace(day, more=True)
    paid = sorted([*day.paid, mark])
    after = Day(tuple(paid[: rule.payable]), day.more or len(paid) > rule.payable)
    first = paid.index(mark)
    for place in range(first, len(day.paid)):
        _add(sums, rule, -Decaying.term(rule.paid(place), day.paid[place].at, rule.half_life))
    for place in range(first, len(after.paid)):
        _add(sums, rule, Decaying.term(rule.paid(place), after.paid[place].at, rule.half_life))
    return after


__all__ = [
    "EPOCH",
    "EVER",
    "Bucket",
    "Contribution",
    "Day",
    "DayKey",
    "Engagement",
    "EngagementRules",
    "Mark",
    "Rule",
    "Sums",
    "Touch",
]
