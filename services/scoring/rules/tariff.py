"""What touches pay under a rule set, in numbers: made once for all touches that meet the same rules.

A replay goes through many touches that are much alike. What of them is the same for all is worked out here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ldexp
from typing import Any, NamedTuple

from services.scoring.engagement.decay import FRACTION_BITS, KEPT_BITS, Decaying, worth
from services.scoring.engagement.domain import Bucket, Engagement, EngagementRules, Rule, Sums, Touch
from services.scoring.fit.domain import Fit
from services.scoring.rules.document import RuleSet
from services.scoring.stages.domain import Standing, Verdict
from shared.events import Stage

QUALIFIED: Stage = "mql"
_SET_ASIDE = frozenset({"recycled", "disqualified"})
_REMEMBERED = 20_000
_SPREAD = 2 * KEPT_BITS


class Payment(NamedTuple):
    """What a rule pays for a match: `points`, or by the place among the matches of a day where that is limited.

    `score` and `place` say which sum it goes to. `raises` is for how long it raises a hand, in microseconds.
    """

    score: int
    place: int
    points: int
    half_life: int
    rule_id: str
    once: bool
    by_place: tuple[int, ...] | None
    raises: int | None


class Sum(NamedTuple):
    """An exact sum of decaying points: mantissa · 2^(exponent − FRACTION_BITS), as `Decaying` but not in its form."""

    mantissa: int
    exponent: int

    def plus(self, points: int, at: int, half_life: int) -> "Sum":
        """The sum with points given at a moment that is not before those it has, in microseconds."""
        whole, rest = divmod(at, half_life)
        term = points * int(ldexp(2.0 ** (rest / half_life), FRACTION_BITS))
        mantissa, exponent = self
        if not mantissa:
            return Sum(term, whole)
        shift = whole - exponent
        if shift > _SPREAD:  # what is dropped has decayed to 2^-KEPT_BITS of a point
            drop = shift - KEPT_BITS
            mantissa = mantissa >> drop if mantissa > 0 else -(-mantissa >> drop)
            exponent, shift = exponent + drop, KEPT_BITS
        return Sum(mantissa + (term << shift), exponent)


NOTHING = Sum(0, 0)


class Score:
    """One score of a rule set: which sums it has, and how they add up. `name` is empty for engagement itself."""

    def __init__(self, name: str, rules: EngagementRules) -> None:
        self.name = name
        self.rules = rules
        self.buckets = tuple(dict.fromkeys(Bucket(rule.group, rule.half_life) for rule in rules.rules))
        self.place_of = {bucket: place for place, bucket in enumerate(self.buckets)}
        groups = list(dict.fromkeys(bucket.group for bucket in self.buckets))
        self.shortest = min([bucket.half_life for bucket in self.buckets], default=0)
        self._parts = [(groups.index(bucket.group), bucket.half_life) for bucket in self.buckets]
        self._caps = [float(rules.groups.get(group, float("inf"))) for group in groups]
        self._limit = float(rules.limit)

    def shown(self, exact: Sequence[Sum], at: int) -> tuple[float, float, float]:
        """What is shown at a moment (groups limited, then the whole, at least 0; six decimals), and how it can move.

        By time alone it falls by no more than the second number, and rises by no more than the third; of either, no
        sooner than points of the shortest half-life would lose it. Limits only slow that.
        """
        given, taken = [0.0] * len(self._caps), [0.0] * len(self._caps)
        for (mantissa, exponent), (group, half_life) in zip(exact, self._parts, strict=True):
            if mantissa:
                points = worth(mantissa, exponent - FRACTION_BITS, at, half_life)
                if mantissa > 0:
                    given[group] += points
                else:
                    taken[group] -= points
        value = falls = rises = 0.0
        for more, less, cap in zip(given, taken, self._caps, strict=True):
            limited = min(more, cap)
            value += min(more - less, cap) if less else limited
            falls += more if less else limited
            rises += less
        return round(min(max(value, 0.0), self._limit), 6), falls, rises

    def sums(self, exact: Sequence[Sum]) -> Sums:
        """The sums as they are kept of a person."""
        return {
            bucket: Decaying.exact(one.mantissa, one.exponent - FRACTION_BITS)
            for bucket, one in zip(self.buckets, exact, strict=True)
            if one.mantissa
        }


class State:
    """A verdict on the way through a past, and the verdicts that were seen to follow it."""

    __slots__ = ("later", "qualified", "verdict")

    def __init__(self, verdict: Verdict, qualified: bool) -> None:
        self.verdict = verdict
        self.qualified = qualified
        self.later: dict[tuple[Any, ...], State] = {}


@dataclass(frozen=True, slots=True)
class Alike:
    """What is the same for all whose fit and profile conditions see as the same.

    `bars` are those of each score that is judged, ascending.
    """

    bars: tuple[Sequence[float], ...]
    states: dict[Verdict, State]


class Tariff:
    """A rule set, ready to go through pasts."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        main, stages = rules.engagement, rules.stages
        self.scores = (Score("", main), *[Score(name, one) for name, one in main.named.items()])
        names = ["", *stages.reads_named]
        self.judged = tuple(place for place, score in enumerate(self.scores) if score.name in names)
        self.shortest = tuple(self.scores[place].shortest for place in self.judged)
        self.computes = stages.computes
        self.remembers = not stages.computes and "attributes" not in stages.lead_fields
        self._qualified = qualified_stages(rules)
        self.attempts, self.connections = main.contact_types
        self._payments: dict[tuple[int, str], Payment] = {}
        self._alike: dict[tuple[Any, ...], Alike] = {}
        self._learnt = 0

    def of(self, touch: Touch) -> tuple[Payment, ...]:
        """What a touch pays, in the order of the rules."""
        return tuple(
            self._payment(place, rule) for place, score in enumerate(self.scores) for rule in score.rules.met_by(touch)
        )

    def _payment(self, place: int, rule: Rule) -> Payment:
        known = self._payments.get((place, rule.rule_id))
        if known is None:
            by_place = None if rule.most is None else tuple(rule.paid(nth) for nth in range(rule.payable))
            known = self._payments[place, rule.rule_id] = Payment(
                place,
                self.scores[place].place_of[Bucket(rule.group, rule.half_life)],
                rule.points,
                rule.half_life,
                rule.rule_id,
                rule.once,
                by_place,
                rule.half_life // 2 if rule.hand_raise else None,
            )
        return known

    def alike(self, fit: Fit, lead: Mapping[str, Any]) -> Alike:
        """What is the same for all of whom conditions see this."""
        stages = self.rules.stages
        key = (fit.points, fit.grade, *self._seen(lead))
        known = self._alike.get(key) if self.remembers else None
        if known is None:
            if max(self._learnt, len(self._alike)) > _REMEMBERED:
                self._alike.clear()
                self._learnt = 0
            named = [self.scores[place].name for place in self.judged[1:]]
            known = Alike((stages.bars(Standing(Engagement(), fit)), *map(stages.bars_on, named)), {})
            if self.remembers:
                self._alike[key] = known
        return known

    def _seen(self, lead: Mapping[str, Any]) -> Iterator[Any]:
        for name in self.rules.stages.lead_fields if self.remembers else ():
            value = lead.get(name)
            yield tuple(value.items()) if name == "consent" and value is not None else value

    def state(self, alike: Alike, verdict: Verdict) -> State:
        """The state of all who are alike and have this verdict."""
        known = alike.states.get(verdict)
        if known is None:
            known = alike.states[verdict] = State(verdict, verdict.stage in self._qualified)
        return known

    def follow(self, alike: Alike, state: State, seen: tuple[Any, ...], verdict: Verdict) -> State:
        """The state of this verdict; remembers that it follows on a state where just this was seen."""
        later = self.state(alike, verdict)
        if self.remembers:
            state.later[seen] = later
            self._learnt += 1
        return later


def qualified_stages(rules: RuleSet) -> frozenset[str]:
    """The stages that are an MQL's, or come after it in the document."""
    stages = [rule.stage for rule in rules.stages.rules]
    if QUALIFIED not in stages:
        return frozenset()
    return frozenset(stages[stages.index(QUALIFIED) :]) - _SET_ASIDE
