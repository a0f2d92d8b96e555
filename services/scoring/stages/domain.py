"""Lifecycle stages: which one a lead stands in, and when that could next change by decay alone.

The stages of a document are tried in order and the last that counts is the lead's. A stage counts while its `when`
holds; with a `leave_when` it also counts, once reached, until that holds: so a score that wavers around a bar does not
make a lead flap. All of it is judged at the moment of the newest touch first, so that points are counted whole however
long the touch was on its way, and then at the present.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import log2
from typing import Any, get_args

from services.scoring.engagement.decay import EPOCH, micros
from services.scoring.engagement.domain import Engagement, EngagementRules
from services.scoring.fit.domain import Fit
from shared.events import Stage
from shared.rules import Evaluation, Expression

FIRST: Stage = "subscriber"
_REMEMBERED = 20_000
_AMOUNTS = ("employees", "annual_revenue", "attributes")
_ARITHMETIC = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_", "int", "uint", "double", "string", "_?_:_"})
_SCAN_STEPS = 400
_HORIZON = 20 * 365 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """A stage, what brings a lead there, and what takes it away again."""

    stage: Stage
    when: Expression
    leave_when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Sales:
    """What sales made of the lead: the state of its present assignment, its deals, and its last rejection."""

    assignment: str | None = None
    deal: str | None = None
    rejected_at: datetime | None = None


NO_SALES = Sales()


@dataclass(frozen=True, slots=True)
class Standing:
    """All that stages look at."""

    engagement: Engagement
    fit: Fit
    lead: Mapping[str, Any] = field(default_factory=dict)
    sales: Sales = NO_SALES


@dataclass(frozen=True, slots=True)
class Verdict:
    """The stage, the stages that count by their `leave_when`, and why it is not the stage before."""

    stage: Stage = FIRST
    held: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers at a moment."""

    at: datetime
    engagement: float
    fit: int
    total: float
    hand_raise: bool


@dataclass(frozen=True, slots=True)
class Check:
    """When the stage must be looked at again. Until then the engagement does not fall below `below`, if that is set."""

    at: datetime
    below: float | None = None


class StageRules:
    """The stage part of a rule set."""

    def __init__(self, rules: Sequence[Rule], engagement: EngagementRules) -> None:
        self.rules = tuple(rules)
        self._engagement = engagement
        self._order = dict.fromkeys(get_args(Stage), -1) | {rule.stage: place for place, rule in enumerate(rules)}
        expressions = [one for rule in rules for one in (rule.when, rule.leave_when) if one is not None]
        self._lead_fields = sorted({path[1] for one in expressions for path in one.references if path[0] == "lead"})
        self._plain_lead_fields = [name for name in self._lead_fields if name != "consent"]
        self._reads_open = "attributes" in self._lead_fields
        self._roots = frozenset(path[0] for one in expressions for path in one.references)
        self._reads_hand_raise = any(one.reads("score", "hand_raise") for one in expressions)
        decaying = [one for one in expressions if one.reads("score", "engagement") or one.reads("score", "total")]
        self._computes = any(
            one.functions & _ARITHMETIC or any(one.reads("lead", name) for name in _AMOUNTS) for one in decaying
        )
        whole = [float(points) for points in range(1, engagement.limit + 1)] if self._computes else []
        self._bars = sorted({*whole, *(number for one in decaying for number in one.numbers)})
        self._reads_total = any(one.reads("score", "total") for one in decaying)
        self._decays = bool(decaying) or self._reads_hand_raise
        self._known: OrderedDict[Any, Verdict] = OrderedDict()
        half_lives = [rule.half_life for rule in engagement.rules]
        # While a touch is this young, and a thousandth of its points is gone, it counts as just happened.
        self._young = timedelta(microseconds=min(half_lives, default=0) // 720)
        self._shortest = min(half_lives, default=0)

    @property
    def lead_fields(self) -> list[str]:
        """The fields of the profile that some stage depends on."""
        return self._lead_fields

    def score(self, standing: Standing, at: datetime) -> Score:
        """The numbers at a moment."""
        engagement = self._engagement.value(standing.engagement, at)
        raised = standing.engagement.raised_at
        until = standing.engagement.raised_until
        rejected = standing.sales.rejected_at
        hand_raise = raised is not None and until is not None and at < until
        if hand_raise and rejected is not None and raised is not None:
            hand_raise = raised > rejected
        total = round(engagement + standing.fit.points, 6)
        return Score(at, engagement, standing.fit.points, total, hand_raise)

    def moment(self, standing: Standing, now: datetime) -> datetime:
        """The moment that counts as the present: that of the newest touch while it is young."""
        newest = standing.engagement.newest
        return newest if newest is not None and now - newest <= self._young else now

    def settle(self, standing: Standing, before: Verdict, now: datetime) -> Verdict:
        """Where the lead stands now, coming from `before`; with the reason of `before` when nothing changed."""
        return self.judge(standing, before, now)[0]

    def judge(self, standing: Standing, before: Verdict, now: datetime) -> tuple[Verdict, Score]:
        """Where the lead stands now, coming from `before`, and the numbers that decided."""
        moment, newest, after = self.moment(standing, now), standing.engagement.newest, before
        if newest is not None and newest < moment:
            after = self._judge(standing, after, self.score(standing, newest))
        score = self.score(standing, moment)
        after = self._judge(standing, after, score)
        if after.stage == before.stage and after.reason != before.reason:
            after = Verdict(after.stage, after.held, before.reason)
        return after, score

    def next_check(
        self, standing: Standing, now: datetime, known: Check | None = None, *, exactly: bool = True
    ) -> Check | None:
        """When the stage could change without any fact: exactly then, or else not later, which costs far less.

        `known` is what was found before; it is answered again when more points can only have put it off.
        """
        if not self._decays:
            return None
        moment = self.moment(standing, now)
        earliest = moment + self._young if moment < now else now
        found = self._next_bar(standing, moment, known if known and known.at > earliest else None, exactly=exactly)
        until = standing.engagement.raised_until
        if self._reads_hand_raise and until is not None and until > moment and (found is None or until < found.at):
            found = Check(until, found.below if found else None)
        if found is None or found.at > earliest:
            return found
        return Check(earliest + timedelta(milliseconds=1), found.below)

    def _judge(self, standing: Standing, before: Verdict, score: Score) -> Verdict:
        """One step. Remembered, since a verdict depends on a decaying score only by which bars it has reached."""
        if self._computes or self._reads_open:
            return self._evaluate(standing, before, score)
        bars = self._bars_of(standing)
        reached = bisect_left(bars, score.engagement), bisect_right(bars, score.engagement)
        lead = tuple([standing.lead.get(name) for name in self._plain_lead_fields])
        consent = tuple(standing.lead["consent"].items()) if "consent" in standing.lead else None
        types = standing.engagement.types if "touch_types" in self._roots else None
        key = (
            reached,
            score.hand_raise,
            standing.fit.points,
            standing.fit.grade,
            before,
            standing.sales,
            lead,
            consent,
            types,
        )
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._evaluate(standing, before, score)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _evaluate(self, standing: Standing, before: Verdict, score: Score) -> Verdict:
        evaluation = Evaluation(self._values(standing, before.stage, score))
        stage: Stage = FIRST
        held: set[str] = set()
        ended = entered = ""
        for rule in self.rules:
            counts, _ = rule.when.holds(evaluation)
            if rule.leave_when is not None:
                left = not counts and rule.stage in before.held and rule.leave_when.holds(evaluation)[0]
                counts = counts or (rule.stage in before.held and not left)
                held |= {rule.stage} if counts else set()
            if counts:
                stage, entered = rule.stage, f"{rule.stage}: {rule.when.source}"
            elif rule.stage == before.stage:
                last = rule.leave_when.source if rule.leave_when is not None else f"no longer {rule.when.source}"
                ended = f"{rule.stage} ended: {last}"
        if stage == before.stage:
            return Verdict(stage, frozenset(held), before.reason)
        forward = self._order[stage] > self._order[before.stage]
        return Verdict(stage, frozenset(held), entered if forward else ended or entered)

    def _values(self, standing: Standing, stage: Stage, score: Score) -> dict[str, Any]:
        values: dict[str, Any] = {
            "score": {
                "engagement": score.engagement,
                "fit": float(score.fit),
                "total": score.total,
                "grade": standing.fit.grade,
                "hand_raise": score.hand_raise,
            },
            "stage": stage,
            "assignment": {"state": standing.sales.assignment} if standing.sales.assignment else {},
            "deal": {"status": standing.sales.deal} if standing.sales.deal else {},
        }
        if self._lead_fields:
            values["lead"] = {name: standing.lead[name] for name in self._lead_fields if name in standing.lead}
        if "touch_types" in self._roots:
            values["touch_types"] = sorted(standing.engagement.types)
        return values

    def _bars_of(self, standing: Standing) -> Sequence[float]:
        """The engagement at which some condition can turn for this lead, ascending."""
        fit = float(standing.fit.points)
        bars = {*self._bars, fit}
        return sorted({*bars, *(bar - fit for bar in bars)} if self._reads_total else bars)

    def _next_bar(self, standing: Standing, moment: datetime, known: Check | None, *, exactly: bool) -> Check | None:
        bars = self._bars_of(standing)
        engagement, start = standing.engagement, micros(moment)
        value = self._engagement.value(engagement, moment)
        if any(total.mantissa < 0 for total in engagement.sums.values()):
            return self._scan(engagement, start, bars)
        below = bars[bisect_right(bars, value) - 1] if bars and bars[0] <= value else 0.0
        if below <= 0:
            return None
        if known is not None and known.below == below:
            return known
        if not exactly:
            # Limits only slow the decay, and nothing decays faster than the shortest half-life.
            shortest = min(bucket.half_life for bucket in engagement.sums)
            return Check(moment + timedelta(microseconds=shortest * log2(value / below)), below)
        end, step = start, self._shortest
        while self._engagement.value_at(engagement, end) >= below:
            if end - start > _HORIZON:
                return None
            end, step = end + step, step * 2
        return Check(self._first(engagement, start, end, lambda points: points < below), below)

    def _scan(self, engagement: Engagement, start: int, bars: Sequence[float]) -> Check | None:
        """Negative points let the score rise as they decay: look step by step for the next bar that is crossed."""

        def level(points: float) -> int:
            return bisect_right(bars, points)

        here, at, step = level(self._engagement.value_at(engagement, start)), start, max(self._shortest // 16, 1)
        for _ in range(_SCAN_STEPS):
            if at - start > _HORIZON:
                return None
            if level(self._engagement.value_at(engagement, at + step)) != here:
                return Check(self._first(engagement, at, at + step, lambda points: level(points) != here))
            at, step = at + step, step + step // 32
        return None

    def _first(self, engagement: Engagement, start: int, end: int, met: Callable[[float], bool]) -> datetime:
        """The first moment in (start, end] at which the engagement meets a condition that it meets at `end`."""
        while end - start > 1:
            middle = (start + end) // 2
            if met(self._engagement.value_at(engagement, middle)):
                end = middle
            else:
                start = middle
        return EPOCH + timedelta(microseconds=end)
