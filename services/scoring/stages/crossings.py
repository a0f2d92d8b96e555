"""When a decaying score next passes a bar, or turns a comparison: the first instant, found so that none is missed.

A score is a sum of exponentials with several half-lives, cut by group limits, then by the whole limit and by 0. With
negative points it is not monotone. Each term alone is, so that over any stretch of time both the score and its slope
lie between bounds that are easy to tell. A stretch is done with as soon as the bounds show that nothing turns in it, or
that what may turn only moves one way, so that its ends tell; else it is halved, the earlier half first, down to single
microseconds. That is interval branch and bound with a monotonicity test (E. Hansen, G. W. Walster, Global Optimization
Using Interval Analysis, 2nd ed. 2004, chapters 9 and 12).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, log

from services.scoring.engagement.domain import Engagement, EngagementRules
from shared.rules import Comparison, Expression, Path, Span, comparisons_in

HORIZON = 20 * 365 * 86_400_000_000
"""How far is looked ahead, in microseconds; whatever could still turn after that is looked at again then."""
MOST_STRETCHES = 4_000
"""So many stretches are tried; after that the first one that is not done with is looked at when it comes."""
_DECIMALS = 6
_EXACT = 9
_SLACK = 1e-9
_NEARLY = 1
_HALF = 0.5e-6
_MOST_GUESSES = 60
Level = tuple[int, int] | bool | None


@dataclass(frozen=True, slots=True)
class Bars:
    """The numbers that a score is compared with, ascending: those that it can reach, and those that it can pass."""

    reached: tuple[float, ...] = ()
    passed: tuple[float, ...] = ()

    def level(self, value: float) -> tuple[int, int]:
        """How many a score has reached, and how many it has passed."""
        return bisect_right(self.reached, value), bisect_left(self.passed, value)

    def lowered(self, by: float, others: "Bars") -> "Bars":
        """The same for what is less by so much, and others. What is compared has six decimals."""
        return Bars(
            tuple(sorted({*others.reached, *(round(bar - by, _EXACT) for bar in self.reached)})),
            tuple(sorted({*others.passed, *(round(bar - by, _EXACT) for bar in self.passed)})),
        )

    @property
    def every(self) -> set[float]:
        """All of the numbers."""
        return {*self.reached, *self.passed}


@dataclass(frozen=True, slots=True)
class Watch:
    """What conditions see of decaying scores: numbers these are compared with, and comparisons that compute."""

    bars: Mapping[Path, Bars]
    comparisons: tuple[Comparison, ...]

    def __bool__(self) -> bool:
        return bool(self.bars or self.comparisons)


def is_decaying(path: Path) -> bool:
    """Whether a value that conditions see changes by time alone."""
    return path in (("score", "engagement"), ("score", "total")) or path[0] == "scores"


def watched(expressions: Iterable[Expression], limit: int) -> Watch:
    """What to watch for these conditions. One that does more than compare is tried at every whole point."""
    reached: dict[Path, set[float]] = {}
    passed: dict[Path, set[float]] = {}
    comparisons: dict[Comparison, None] = {}
    for expression in expressions:
        found, understood = comparisons_in(expression.source, is_decaying)
        for comparison in found:
            bar = comparison.bar()
            if bar is None or not is_decaying(bar[0]):
                comparisons[comparison] = None
                continue
            path, relation, number = bar
            if relation not in (">", "<="):
                reached.setdefault(path, set()).add(float(number))
            if relation not in (">=", "<"):
                passed.setdefault(path, set()).add(float(number))
        if not understood:
            whole = {*expression.numbers, *map(float, range(1, limit + 1))}
            for path in filter(is_decaying, expression.references):
                for bars in (reached, passed):
                    bars.setdefault(path, set()).update(whole)
    paths = sorted(reached.keys() | passed.keys())
    bars_of = {path: Bars(*(tuple(sorted(bars.get(path, ()))) for bars in (reached, passed))) for path in paths}
    return Watch(bars_of, tuple(comparisons))


class Curve:
    """A score as a function of the time after `start`, all times in microseconds, with `plus` added to it."""

    def __init__(self, rules: EngagementRules, engagement: Engagement, start: int, plus: int = 0) -> None:
        self._rules = rules
        self._engagement = engagement
        self._start = start
        self._plus = float(plus)
        self._limit = float(rules.limit)
        groups: dict[str, list[tuple[float, float]]] = {}
        for bucket, total in engagement.sums.items():
            term = total.value(start, bucket.half_life), log(2) / bucket.half_life
            groups.setdefault(bucket.group, []).append(term)
        self._groups = [(rules.groups.get(name), terms) for name, terms in sorted(groups.items())]
        self._slack = _SLACK * (1 + sum(abs(value) for _, terms in self._groups for value, _ in terms))

    def value(self, at: int) -> float:
        """Exactly what is shown then."""
        return round(self._rules.value_at(self._engagement, self._start + at) + self._plus, _DECIMALS)

    def near(self, at: float) -> float:
        """The same but for the last bits, not rounded, and much faster."""
        whole = 0.0
        for cap, terms in self._groups:
            group = sum([value * exp(-rate * at) for value, rate in terms])
            whole += group if cap is None or group < cap else cap
        return min(max(whole, 0.0), self._limit) + self._plus

    def span(self, since: int, until: int | None) -> Span:
        """Bounds of what is shown, and of how fast it moves, in [since, until]; None: for ever."""
        low = high = slope_low = slope_high = 0.0
        for cap, terms in self._groups:
            group = _sum_of(terms, since, until)
            if cap is not None and group.high > cap:
                group = _below(group, float(cap))
            low, high = low + group.low, high + group.high
            slope_low, slope_high = slope_low + group.slope_low, slope_high + group.slope_high
        if low < 0.0 or high > self._limit:
            slope_low, slope_high = min(slope_low, 0.0), max(slope_high, 0.0)
        low, high = (min(max(end, 0.0), self._limit) for end in (low - self._slack, high + self._slack))
        return Span(round(low + self._plus, _DECIMALS), round(high + self._plus, _DECIMALS), slope_low, slope_high)

    def narrowed(self, span: Span, since: int, until: int) -> Span:
        """The bounds as close as can be, where the score moves one way only."""
        if not _one_way(span):
            return span
        ends = self.value(since), self.value(until)
        return Span(min(ends), max(ends), span.slope_low, span.slope_high)


def _sum_of(terms: Sequence[tuple[float, float]], since: int, until: int | None) -> Span:
    low = high = slope_low = slope_high = 0.0
    for value, rate in terms:
        first = value * exp(-rate * since)
        last = value * exp(-rate * until) if until is not None else 0.0
        if value > 0:
            low, high = low + last, high + first
            slope_low, slope_high = slope_low - rate * first, slope_high - rate * last
        else:
            low, high = low + first, high + last
            slope_low, slope_high = slope_low - rate * last, slope_high - rate * first
    return Span(low, high, slope_low, slope_high)


def _below(group: Span, cap: float) -> Span:
    if group.low >= cap:
        return Span(cap, cap)
    return Span(group.low, cap, min(group.slope_low, 0.0), max(group.slope_high, 0.0))


class Lookahead:
    """The curves of a person, and what is watched of them, from an instant on."""

    def __init__(self, watch: Watch, curves: Mapping[Path, Curve], constants: Mapping[Path, float | int]) -> None:
        self._bars = [(path, bars) for path, bars in watch.bars.items() if path in curves]
        self._comparisons = watch.comparisons
        self._curves = curves
        self._constants = constants
        self._here = self._levels(0)

    def first(self, shortest: int, until: int = HORIZON) -> int | None:
        """The first instant in (0, until] at which something turns; `until` if it still could; None: never.

        `shortest` is the shortest half-life: how far the first stretch goes, the next ones go further.
        """
        budget = MOST_STRETCHES
        since, width = 0, max(shortest // 8, 1)
        while since < until:
            if self._turns(since, None) is False:
                return None
            end = min(since + width, until)
            stretches = [(since, end)]
            while stretches:
                one = stretches.pop()
                budget -= 1
                if budget < 0:
                    return one[0] + 1
                turns = self._turns(*one)
                if turns is None:
                    middle = (one[0] + one[1]) // 2
                    stretches += [(middle, one[1]), (one[0], middle)]
                elif turns:
                    return self._found(*one)
            since, width = end, width * 2
        return until

    def _turns(self, since: int, until: int | None) -> bool | None:
        """Whether something turns in (since, until], where nothing turned up to `since`; None: it must be halved."""
        spans = {path: curve.span(since, until) for path, curve in self._curves.items()}
        moves = self._moves(spans)
        if moves is None and until is not None and self._comparisons:
            ends = {path: self._curves[path].narrowed(span, since, until) for path, span in spans.items()}
            moves = self._moves(ends)
        if moves is False:
            return False
        if until is None or (moves is None and until - since > 1):
            return None
        return self._levels(until) != self._here

    def _moves(self, spans: Mapping[Path, Span]) -> bool | None:
        """Whether anything watched may turn within these bounds, each thing one way only; None: to and fro."""
        moves = False
        for path, bars in self._bars:
            span = spans[path]
            if bars.level(span.low) != bars.level(span.high):
                if not _one_way(span):
                    return None
                moves = True
        if self._comparisons:
            readings = {**self._constants, **spans}
            for comparison in self._comparisons:
                gap = comparison.gap(readings)
                if not (gap.low > 0 or gap.high < 0):
                    if not _one_way(gap):
                        return None
                    moves = True
        return moves

    def _found(self, since: int, until: int) -> int:
        """Where it turns in (since, until]: about where first, then to the microsecond of what is shown."""
        low, high = since, min(max(self._about(since, until), since + 1), until)
        margin = _NEARLY
        while high < until and self._levels(high) == self._here:
            low, high, margin = high, min(high + margin, until), margin * 2
        margin = _NEARLY
        while high - margin > low and self._levels(high - margin) != self._here:
            high, margin = high - margin, margin * 2
        low = max(low, high - margin)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._levels(middle) != self._here else (middle, high)
        return high

    def _about(self, since: int, until: int) -> int:
        if self._comparisons:
            low, high = since, until
            while high - low > _NEARLY:
                middle = (low + high) // 2
                low, high = (low, middle) if self._levels(middle) != self._here else (middle, high)
            return high
        return min(_passing(self._curves[path], bars, since, until) for path, bars in self._bars)

    def _levels(self, at: int) -> list[Level]:
        values = {path: curve.value(at) for path, curve in self._curves.items()}
        levels: list[Level] = [bars.level(values[path]) for path, bars in self._bars]
        if self._comparisons:
            known = {**self._constants, **values}
            levels += [comparison.holds(known) for comparison in self._comparisons]
        return levels


def _passing(curve: Curve, bars: Bars, since: int, until: int) -> int:
    """About when a curve that moves one way passes the first of its bars: regula falsi, the Illinois way."""
    first, last = curve.near(since), curve.near(until)
    ahead = [bar for bar in bars.every if min(first, last) - _HALF <= bar <= max(first, last) + _HALF]
    best = float(until)
    for bar in (min(ahead, key=lambda one: abs(one - first)),) if ahead else ():
        level = bar + (_HALF if last > first else -_HALF)
        low, high, below, above = float(since), float(until), first - level, last - level
        for _ in range(_MOST_GUESSES):
            if below * above >= 0 or abs(high - low) < 1:
                break
            guess = (low * above - high * below) / (above - below)
            found = curve.near(guess) - level
            if found * above < 0:
                low, below = high, above
            else:
                below /= 2
            high, above = guess, found
        best = min(best, high)
    return ceil(best)


def _one_way(span: Span) -> bool:
    return span.slope_high <= 0 or span.slope_low >= 0
