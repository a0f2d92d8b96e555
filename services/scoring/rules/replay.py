"""A person's past once more, under some rules: what the touches come to, and on which days the person was an MQL.

Touches come in the order in which they happened. The stage is judged before and after each of them and, where it can
have changed in between, at every midnight (UTC) of the window, as it would have been if sales had done nothing and the
profile had always been today's: of earlier profiles, and of what reps would have done, nothing is known.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from math import inf, log2
from typing import Any

from services.scoring.engagement.contacts import MOST, Contacts
from services.scoring.engagement.decay import EPOCH, micros
from services.scoring.engagement.domain import Engagement
from services.scoring.fit.domain import Fit
from services.scoring.rules.document import DAY
from services.scoring.rules.tariff import NOTHING, Payment, State, Tariff
from services.scoring.stages.domain import Standing, Verdict

_EVER = -(2**62)
_ROUNDED = 1e-6
"""More than what is shown may lie from what it is."""
_NO_TYPES: frozenset[str] = frozenset()


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

    Moments are in microseconds. `spans` are the times at which the person was an MQL, or further: from when, and until
    when (None: still).
    """

    __slots__ = (
        *("fit", "spans", "_alike", "_attempts", "_connected", "_exact", "_holds_until", "_lead", "_level", "_limits"),
        *("_newest", "_only_falls", "_raised", "_raised_until", "_room", "_seen", "_state", "_tariff", "_types"),
        "_window",
    )

    def __init__(self, tariff: Tariff, window: Window, fit: Fit, lead: Mapping[str, Any]) -> None:
        self.spans: list[tuple[int, int | None]] = []
        self._tariff = tariff
        self._window = window
        self.fit = fit
        self._lead = lead
        self._alike = tariff.alike(fit, lead)
        self._state = tariff.state(self._alike, Verdict())
        self._exact = [[NOTHING] * len(score.buckets) for score in tariff.scores]
        self._limits: dict[tuple[int, str], tuple[int, int]] = {}
        self._types = _NO_TYPES
        self._newest: int | None = None
        self._raised: int | None = None
        self._raised_until: int | None = None
        self._connected: int | None = None
        self._attempts: deque[int] = deque(maxlen=MOST)
        self._level: tuple[Any, ...] = ()
        self._holds_until = 0.0
        self._only_falls = False
        self._room = [inf] * len(tariff.scores)
        self._seen: int | None = None

    def engagement(self) -> Engagement:
        """What the touches come to."""
        sums, *named = [score.sums(exact) for score, exact in zip(self._tariff.scores, self._exact, strict=True)]
        names = [score.name for score in self._tariff.scores[1:]]
        return Engagement(
            sums,
            _moment(self._newest),
            _moment(self._raised),
            _moment(self._raised_until),
            self._types,
            {name: one for name, one in zip(names, named, strict=True) if one},
            Contacts(self._connected, tuple(self._attempts)),
        )

    def under(self, tariff: Tariff) -> "Replay":
        """The same past, to go on under other rules, which would have made the same of it so far."""
        other = Replay(tariff, self._window, self.fit, self._lead)
        for name in (
            "_types",
            "_newest",
            "_raised",
            "_raised_until",
            "_connected",
            "_level",
            "_holds_until",
            "_only_falls",
            "_seen",
        ):
            setattr(other, name, getattr(self, name))
        other.spans, other._limits, other._attempts = [*self.spans], dict(self._limits), self._attempts.copy()
        other._room = [*self._room]
        other._state = tariff.state(other._alike, self._state.verdict)
        for score, one in enumerate(self._tariff.scores):
            for place, bucket in enumerate(one.buckets):
                if self._exact[score][place].mantissa:
                    other._exact[score][tariff.scores[score].place_of[bucket]] = self._exact[score][place]
        return other

    def touch(self, at: int, kind: str | None, payments: Sequence[Payment]) -> None:
        """What happened next, and what it pays; `kind` is its type, None of what a machine did."""
        if self._seen is not None and at > self._seen:
            self._pass_time(at)
        self._newest = at
        anew = kind is not None and kind not in self._types
        if kind is not None:
            if anew:
                self._types |= {kind}
            if kind in self._tariff.connections:
                self._connected = at
                self._attempts.clear()
            elif kind in self._tariff.attempts and at != self._connected:
                self._attempts.append(at)
        may_matter = anew or self._seen is None
        if (payments and self._pay(at, payments)) or (may_matter and at >= self._holds_until):
            self._look(at, anew=anew)
        elif anew:
            self._follow(at)

    def end(self) -> None:
        """Nothing more happened until now."""
        self._pass_time(self._window.now)
        if self._seen is None or self._seen < self._window.now:
            self._look(self._window.now)

    def _pay(self, at: int, payments: Sequence[Payment]) -> bool:
        """Whether any of it may matter to the stage."""
        matters = at >= self._holds_until
        for score, place, points, half_life, rule_id, once, by_place, raises in payments:
            if raises is not None:
                matters, self._raised = True, at
                self._raised_until = max(self._raised_until or at, at + raises)
            if by_place is not None:
                day = _EVER if once else at // DAY
                known = self._limits.get((score, rule_id))
                nth = known[1] if known is not None and known[0] == day else 0
                if nth >= len(by_place):
                    continue
                self._limits[score, rule_id] = day, nth + 1
                points = by_place[nth]  # noqa: PLW2901  # what is paid in the end
            if points:
                exact = self._exact[score]
                exact[place] = exact[place].plus(points, at, half_life)
                self._room[score] -= points
                matters = matters or points < 0 or self._room[score] <= 0
        return matters

    def _pass_time(self, until: int) -> None:
        """What decays meanwhile may end a stage, or begin one."""
        if self._seen is None or until <= self._seen or until < self._holds_until:
            return
        if self._only_falls and self._level_at(until) == self._level:
            return
        midnights = self._window.midnights(self._seen, until)
        while (place := bisect_left(midnights, self._holds_until)) < len(midnights):
            # What only falls passes a bar once: of the midnights at one level the last is all that matters.
            if self._only_falls:
                place = bisect_left(midnights, True, place, key=self._differs)
            if place < len(midnights):
                self._look(midnights[place])
            midnights = midnights[place + 1 :]
        self._look(until)

    def _differs(self, at: int) -> bool:
        return self._level_at(at) != self._level

    def _level_at(self, at: int) -> tuple[Any, ...]:
        return self._level_of(at, self._shown(at))

    def _shown(self, at: int) -> list[tuple[float, float, float]]:
        exact, scores = self._exact, self._tariff.scores
        return [scores[one].shown(exact[one], at) for one in self._tariff.judged]

    def _level_of(self, at: int, shown: Sequence[tuple[float, float, float]]) -> tuple[Any, ...]:
        """All of a verdict that time alone changes: the bars that points have reached, and whether a hand is raised."""
        raised = self._raised_until is not None and at < self._raised_until
        values = [value for value, _, _ in shown]
        if self._tariff.computes:
            return raised, *values
        return raised, *map(_place, self._alike.bars, values)

    def _look_ahead(self, at: int, shown: Sequence[tuple[float, float, float]]) -> None:
        """Before when the level certainly holds by time alone, and how many points more certainly reach no bar."""
        tariff, raised = self._tariff, self._raised_until
        until = float(raised) if raised is not None and at < raised else inf
        self._only_falls = True
        for place, bars, shortest, (value, falls, rises) in zip(
            tariff.judged, self._alike.bars, tariff.shortest, shown, strict=True
        ):
            above, reached = bisect_left(bars, value), bisect_right(bars, value)
            room = bars[above] - value - _ROUNDED if above < len(bars) else inf
            if value > 0 and reached and bars[reached - 1] >= 0:
                until = min(until, at + shortest * _passed(value - bars[reached - 1] - _ROUNDED, falls))
            if rises:
                until = min(until, at + shortest * _passed(room, rises))
                self._only_falls = False
            self._room[place] = room - rises
        self._holds_until = until

    def _look(self, at: int, *, anew: bool = False) -> None:
        shown = self._shown(at)
        level = self._level_of(at, shown)
        self._seen = at
        if not self._tariff.computes:
            self._look_ahead(at, shown)
        if level != self._level or anew:
            self._level = level
            self._follow(at)

    def _follow(self, at: int) -> None:
        """The stage at this level, and whether the person is an MQL by it."""
        state = self._state.later.get((self._level, self._types))
        if state is None:
            state = self._judged(at)
        self._state = state
        open_span = bool(self.spans) and self.spans[-1][1] is None
        if state.qualified == open_span:
            return
        if open_span:
            self.spans[-1] = (self.spans[-1][0], at)
        else:
            self.spans.append((at, None))

    def _judged(self, at: int) -> State:
        standing = Standing(self.engagement(), self.fit, self._lead)
        verdict = self._tariff.rules.stages.at(standing, self._state.verdict, EPOCH + timedelta(microseconds=at))
        return self._tariff.follow(self._alike, self._state, (self._level, self._types), verdict)


def _place(bars: Sequence[float], points: float) -> int:
    """How many bars are reached and how many are passed, as one number."""
    return bisect_left(bars, points) + bisect_right(bars, points)


def _passed(moved: float, most: float) -> float:
    """After how many half-lives, at the earliest, points have moved so far that lose `most` as they decay."""
    if moved >= most:
        return inf
    return -log2(1 - moved / most) if moved > 0 else 0.0


def _moment(at: int | None) -> datetime | None:
    return None if at is None else EPOCH + timedelta(microseconds=at)


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
