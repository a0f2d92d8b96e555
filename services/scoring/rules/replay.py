"""A person's past once more, under some rules: what the touches come to, and on which days the person was an MQL.

Touches come in the order in which they happened. The stage is judged before and after each of them and, where it can
have changed in between, at every midnight (UTC) of the window, as it would have been if sales had done nothing and the
profile had always been today's: of earlier profiles, and of what reps would have done, nothing is known.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from copy import copy
from datetime import date, datetime, timedelta
from typing import Any

from services.scoring.engagement.decay import EPOCH, micros
from services.scoring.engagement.domain import Bucket, Day, DayKey, Engagement, Touch
from services.scoring.rules.document import DAY, RuleSet
from services.scoring.stages.domain import Standing, Verdict
from shared.events import Stage

QUALIFIED: Stage = "mql"
_SET_ASIDE = frozenset({"recycled", "disqualified"})


class Window:
    """The days that are looked at, whole ones and the one under way; moments are in microseconds."""

    def __init__(self, now: datetime, days: int) -> None:
        self.now = micros(now)
        self.start = (self.now // DAY - days) * DAY
        self.days = days + 1

    def midnights(self, since: int, until: int) -> range:
        """The midnights of the window in (since, until)."""
        return range(max(self.start, (since // DAY + 1) * DAY), min(until, self.now), DAY)

    def place(self, at: int) -> int:
        """The day that a moment falls on: 0 is the first of the window, and what lies before it."""
        return min(max((at - self.start) // DAY, 0), self.days - 1)

    def dates(self) -> Iterator[date]:
        """The days by name."""
        first = EPOCH + timedelta(microseconds=self.start)
        return ((first + timedelta(days=place)).date() for place in range(self.days))


class Replay:
    """One person under one rule set. Give it all touches, the earliest first, then ask for the `end`.

    `spans` are the times at which the person was an MQL, or further: from when, and until when (None: still).
    """

    def __init__(self, rules: RuleSet, window: Window, today: Standing) -> None:
        self.spans: list[tuple[int, int | None]] = []
        self._rules = rules
        self._window = window
        self._qualified = qualified_stages(rules)
        self._standing = Standing(Engagement(), today.fit, today.lead)
        self._days: dict[DayKey, Day] = {}
        self._verdict = Verdict()
        self._level: tuple[Any, ...] = ()
        self._turning = False
        self._bars = [rules.stages.bars(today), *map(rules.stages.bars_on, rules.stages.reads_named)]
        self._nothing = (False, *[(bisect_left(bars, 0.0), bisect_right(bars, 0.0)) for bars in self._bars])
        self._points: dict[Bucket, float] = {}
        self._at = 0
        self._seen: int | None = None

    @property
    def engagement(self) -> Engagement:
        """What the touches come to."""
        return self._standing.engagement

    def under(self, rules: RuleSet) -> "Replay":
        """The same past, to go on under other rules, which would have made the same of it so far."""
        other = copy(self)
        other._rules = rules  # noqa: SLF001  # it is one of us
        other.spans, other._days, other._points = [*self.spans], dict(self._days), dict(self._points)  # noqa: SLF001
        return other

    def touch(self, touch: Touch) -> None:
        """What happened next."""
        at, before = micros(touch.occurred_at), self._standing.engagement
        self._pass_time(at)
        after, changed = self._rules.engagement.fold(before, self._days, [touch])
        self._days.update(changed)
        self._standing = Standing(after, self._standing.fit, self._standing.lead)
        if after.sums == before.sums and after.named == before.named and after.types == before.types:
            return
        self._measure(before, at)
        self._look(at, anew=after.types != before.types)

    def end(self) -> None:
        """Nothing more happened until now."""
        self._pass_time(self._window.now)
        if self._seen is None or self._seen < self._window.now:
            self._look(self._window.now)

    def _pass_time(self, until: int) -> None:
        """What decays meanwhile may end a stage, or begin one."""
        if self._seen is None or until <= self._seen:
            return
        if self._level == self._nothing and not self._turning:
            return  # points that only decay do not come back to a bar
        level = self._level_at(until)
        if level == self._level and not self._turning:
            return
        midnights = self._window.midnights(self._seen, until)
        while midnights:
            # Points that only decay pass a bar once: of the midnights at one level the last is all that matters.
            place = 0 if self._turning else bisect_left(midnights, True, key=self._differs)
            if place < len(midnights):
                self._look(midnights[place])
            midnights = midnights[place + 1 :]
        self._look(until)

    def _differs(self, at: int) -> bool:
        return self._level_at(at) != self._level

    def _measure(self, before: Engagement, at: int) -> None:
        """Keep what each sum is worth now: from here on it only decays. And whether the whole may rise by that."""
        after, passed = self.engagement, at - self._at
        self._points = {
            bucket: self._points[bucket] * 2.0 ** (-passed / bucket.half_life)
            if before.sums.get(bucket) is total
            else total.value(at, bucket.half_life)
            for bucket, total in after.sums.items()
        }
        self._at = at
        negative = any(points < 0 for points in self._points.values())
        negative = negative or any(one.mantissa < 0 for sums in after.named.values() for one in sums.values())
        one_half_life = len({bucket.half_life for bucket in self._points}) < 2 and not after.named
        turning = negative and not (one_half_life and self._uncapped(self._groups(at)))
        self._turning = turning or self._rules.stages.computes

    def _groups(self, at: int) -> dict[str, float]:
        """Points by group, before its limit; as good as exact, since what is kept decays but once a touch."""
        passed, totals = at - self._at, dict[str, float]()
        if not passed:
            for (group, _), points in self._points.items():
                totals[group] = totals.get(group, 0.0) + points
            return totals
        factors: dict[int, float] = {}
        for (group, half_life), points in self._points.items():
            factor = factors.get(half_life)
            if factor is None:
                factor = factors[half_life] = 2.0 ** (-passed / half_life)
            totals[group] = totals.get(group, 0.0) + points * factor
        return totals

    def _uncapped(self, totals: dict[str, float]) -> bool:
        caps = self._rules.engagement.groups
        return all(points <= caps.get(group, points) for group, points in totals.items())

    def _level_at(self, at: int) -> tuple[Any, ...]:
        """All of a verdict that time alone changes: the bars that points have reached, and whether a hand is raised."""
        rules, engagement = self._rules.engagement, self.engagement
        whole = 0.0
        for group, given in self._groups(at).items():
            cap = rules.groups.get(group)
            whole += given if cap is None or given < cap else cap
        points = [round(min(max(whole, 0.0), float(rules.limit)), 6)]
        for name in self._rules.stages.reads_named:
            points.append(rules.named[name].value_at(engagement.of(name), at))
        until = engagement.raised_until
        raised = until is not None and at < micros(until)
        if self._rules.stages.computes:
            return raised, *points
        places = zip(self._bars, points, strict=True)
        return raised, *[(bisect_left(bars, one), bisect_right(bars, one)) for bars, one in places]

    def _look(self, at: int, *, anew: bool = False) -> None:
        stages, level = self._rules.stages, self._level_at(at)
        self._seen = at
        if level == self._level and not anew:
            return
        self._level = level
        self._verdict = stages.at(self._standing, self._verdict, EPOCH + timedelta(microseconds=at))
        open_span = bool(self.spans) and self.spans[-1][1] is None
        if (self._verdict.stage in self._qualified) == open_span:
            return
        if open_span:
            self.spans[-1] = (self.spans[-1][0], at)
        else:
            self.spans.append((at, None))


def qualified_stages(rules: RuleSet) -> frozenset[str]:
    """The stages that are an MQL's, or come after it in the document."""
    stages = [rule.stage for rule in rules.stages.rules]
    if QUALIFIED not in stages:
        return frozenset()
    return frozenset(stages[stages.index(QUALIFIED) :]) - _SET_ASIDE


def entered(spans: list[tuple[int, int | None]], window: Window) -> list[int]:
    """The days of the window on which the person became an MQL."""
    return [window.place(since) for since, _ in spans if since >= window.start]


def stood(spans: list[tuple[int, int | None]], window: Window) -> Iterator[int]:
    """The days at whose end, or now, the person was one."""
    for since, until in spans:
        first = window.place(since - 1) if since > window.start else 0
        last = window.days if until is None else (until - window.start - 1) // DAY
        yield from range(first, last)


def first_day(spans: list[tuple[int, int | None]], window: Window) -> int | None:
    """The first day of the window on which the person was one at any time."""
    for since, until in spans:
        if until is None or until > window.start:
            return window.place(since)
    return None
