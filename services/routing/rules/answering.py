"""How fast reps answered what they were offered, and so how likely each is to be late under another limit."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.routing.reps.calendar import Calendar
from services.routing.reps.domain import Rep
from services.routing.reps.local_time import MINUTE
from shared.ids import RepId

FEWEST_ANSWERS = 5
"""Whose own answers are fewer is taken to answer as all together do."""


@dataclass(frozen=True, slots=True)
class Answering:
    """In how many working minutes each rep took each offer; infinitely many where it was never answered."""

    taken: dict[RepId, list[float]]
    _known: dict[tuple[RepId, int], float | None] = field(default_factory=dict, compare=False)

    def later_than(self, rep_id: RepId, limit: int) -> float | None:
        """How likely a rep is to answer later than within so many working minutes; None: nobody's answers are known."""
        if (rep_id, limit) not in self._known:
            own = self.taken.get(rep_id, [])
            told = own if len(own) >= FEWEST_ANSWERS else [one for each in self.taken.values() for one in each]
            self._known[rep_id, limit] = sum(minutes > limit for minutes in told) / len(told) if told else None
        return self._known[rep_id, limit]


def answering(reps: Sequence[Rep], answers: Sequence[tuple[RepId, datetime, datetime | None]]) -> Answering:
    """What answers tell, by (rep, asked, answered or never)."""
    calendars = {rep.rep_id: rep.calendar for rep in reps}
    taken: defaultdict[RepId, list[float]] = defaultdict(list)
    for rep_id, asked, answered in answers:
        minutes = float("inf") if answered is None else worked_minutes(calendars[rep_id], asked, answered)
        taken[rep_id].append(minutes)
    return Answering(dict(taken))


def worked_minutes(calendar: Calendar, start: datetime, end: datetime) -> float:
    """The working minutes between two moments."""
    worked = timedelta(0)
    for window in calendar.windows(start):
        if window.start >= end:
            break
        worked += min(window.end, end) - window.start
    return worked / MINUTE
