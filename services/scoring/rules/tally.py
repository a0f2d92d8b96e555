"""What a simulation comes to, person by person; tallies of several slices of people add up to one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest, nsmallest
from typing import Any

from services.scoring.rules.replay import Window, entered, first_day, stood
from shared.ids import LeadId

LISTED = 100
MOVERS = 20
BIN = 10
Spans = list[tuple[int, int | None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A person's numbers under some rules."""

    engagement: float
    fit: int
    total: float
    grade: str
    stage: str
    scores: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """As it stands in the answer."""
        return {name: getattr(self, name) for name in ("engagement", "fit", "total", "grade", "stage", "scores")}

    def as_told(self) -> tuple[Any, ...]:
        """What others can see of it: whole points."""
        beside = {name: round(points) for name, points in self.scores.items()}
        return round(self.total), self.grade, self.stage, beside


@dataclass(frozen=True, slots=True)
class Change:
    """A person who would stand otherwise."""

    lead_id: LeadId
    before: Outcome
    after: Outcome

    @property
    def size(self) -> float:
        """By how many points the total changes, without sign."""
        return abs(self.before.total - self.after.total)

    @property
    def rank(self) -> tuple[bool, float, str]:
        """The order of the list: other stages first, then the greatest changes."""
        return self.before.stage == self.after.stage, -self.size, self.lead_id


@dataclass(slots=True)
class Side:
    """One of the two rule sets: how everybody stands, and who became an MQL when. Days count from 0."""

    stages: Counter[str] = field(default_factory=Counter)
    grades: Counter[str] = field(default_factory=Counter)
    totals: Counter[int] = field(default_factory=Counter)
    entered: Counter[int] = field(default_factory=Counter)
    stood: Counter[int] = field(default_factory=Counter)
    ever: int = 0

    def add(self, outcome: Outcome, spans: Spans, window: Window) -> int | None:
        """One more person; answers the first day on which it was an MQL."""
        self.stages[outcome.stage] += 1
        self.grades[outcome.grade] += 1
        self.totals[int(outcome.total // BIN) * BIN] += 1
        self.entered.update(entered(spans, window))
        self.stood.update(stood(spans, window))
        first = first_day(spans, window)
        self.ever += first is not None
        return first

    def merge(self, other: "Side") -> None:
        """Add another tally."""
        for name in ("stages", "grades", "totals", "entered", "stood"):
            getattr(self, name).update(getattr(other, name))
        self.ever += other.ever


@dataclass(slots=True)
class Tally:
    """Everybody so far. `gained` would have been MQLs and were not, `lost` the other way, with the first such day."""

    persons: int = 0
    changed: int = 0
    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    listed: list[Change] = field(default_factory=list)
    moved: list[Change] = field(default_factory=list)
    gained: list[tuple[int, LeadId]] = field(default_factory=list)
    lost: list[tuple[int, LeadId]] = field(default_factory=list)
    gained_in_all: int = 0
    lost_in_all: int = 0

    def add(self, change: Change, before: Spans, after: Spans, window: Window) -> None:
        """One more person, with the times at which it was an MQL under either rules."""
        self.persons += 1
        was = self.before.add(change.before, before, window)
        would = self.after.add(change.after, after, window)
        if change.before.as_told() != change.after.as_told():
            self.changed += 1
            self.listed.append(change)
        if change.size:
            self.moved.append(change)
        if would is not None and was is None:
            self.gained_in_all += 1
            self.gained.append((would, change.lead_id))
        if was is not None and would is None:
            self.lost_in_all += 1
            self.lost.append((was, change.lead_id))

    def merge(self, other: "Tally") -> None:
        """Add another tally; lists keep what comes first in them."""
        self.persons += other.persons
        self.changed += other.changed
        self.before.merge(other.before)
        self.after.merge(other.after)
        self.gained_in_all += other.gained_in_all
        self.lost_in_all += other.lost_in_all
        self.listed += other.listed
        self.moved += other.moved
        self.gained += other.gained
        self.lost += other.lost
        self.trim()

    def trim(self) -> None:
        """Keep of the lists what comes first in them."""
        self.listed = nsmallest(LISTED, self.listed, key=lambda one: one.rank)
        self.moved = nlargest(MOVERS, self.moved, key=lambda one: (one.size, one.lead_id))
        self.gained = nsmallest(LISTED, self.gained)
        self.lost = nsmallest(LISTED, self.lost)

    def as_json(self, window: Window) -> dict[str, Any]:
        """As it is answered, but for why the leads that move most do."""
        before, after = self.before, self.after
        names = [day.isoformat() for day in window.dates()]
        return {
            "persons": self.persons,
            "changed": self.changed,
            "stages": _compared(before.stages, after.stages),
            "grades": _compared(before.grades, after.grades),
            "totals": [
                {"from": low, "below": low + BIN, "before": before.totals[low], "after": after.totals[low]}
                for low in _bins(before.totals, after.totals)
            ],
            "mqls": {
                "before": before.ever,
                "after": after.ever,
                "gained": self.gained_in_all,
                "lost": self.lost_in_all,
                "days": [
                    {
                        "day": name,
                        "before": before.entered[place],
                        "after": after.entered[place],
                        "standing_before": before.stood[place],
                        "standing_after": after.stood[place],
                    }
                    for place, name in enumerate(names)
                ],
            },
            "gained": [{"lead_id": lead_id, "day": names[place]} for place, lead_id in self.gained],
            "lost": [{"lead_id": lead_id, "day": names[place]} for place, lead_id in self.lost],
            "items": [
                {"lead_id": one.lead_id, "before": one.before.as_json(), "after": one.after.as_json()}
                for one in self.listed
            ],
        }


def _compared(before: Counter[str], after: Counter[str]) -> dict[str, dict[str, int]]:
    return {name: {"before": before[name], "after": after[name]} for name in sorted(before.keys() | after.keys())}


def _bins(before: Counter[int], after: Counter[int]) -> range:
    every = before.keys() | after.keys()
    return range(min(every), max(every) + 1, BIN) if every else range(0)
