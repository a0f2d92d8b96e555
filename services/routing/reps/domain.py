"""Who can be given leads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from services.routing.reps.calendar import Calendar, Period
from services.routing.reps.schedules import Schedule
from services.routing.reps.spans import Span
from shared.ids import RepId
from shared.rules import BOOLEAN, INTEGER, TEXT, TEXTS, present

FIELDS = {
    "rep_id": TEXT,
    "name": TEXT,
    "email": TEXT,
    "territories": TEXTS,
    "skills": TEXTS,
    "teams": TEXTS,
    "seniority": INTEGER,
    "weight": INTEGER,
    "capacity": INTEGER,
    "daily_capacity": INTEGER,
    "time_zone": TEXT,
    "open_leads": INTEGER,
    "active": BOOLEAN,
}
"""What an expression may read of a rep."""


@dataclass(frozen=True, slots=True)
class Cap:
    """The most leads that a rep is given in a period of their working days, and how many they were given in it."""

    of: Period
    most: int
    given: int
    period: Span


@dataclass(frozen=True, slots=True)
class Rep:
    """Someone in sales.

    `weight` is the share of turns in a round robin, `capacity` the most leads held at once (None: any number),
    `seniority` any number, the higher the more senior. `open_leads` counts the leads held now, offered ones included.
    `most` is the most leads that may be given by period, `caps` how far that is used up, once it was counted;
    `schedule` is what the calendar was made of.
    """

    rep_id: RepId
    name: str
    email: str
    calendar: Calendar
    territories: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    seniority: int | None = None
    weight: int = 100
    capacity: int | None = None
    active: bool = True
    open_leads: int = 0
    last_assigned_at: datetime | None = None
    most: Mapping[Period, int] = field(default_factory=dict)
    caps: tuple[Cap, ...] = ()
    schedule: Schedule | None = field(default=None, compare=False, repr=False)

    def values(self) -> Mapping[str, Any]:
        """`rep` for expressions, without what is absent."""
        return present(
            rep_id=self.rep_id,
            name=self.name,
            email=self.email,
            territories=list(self.territories),
            skills=list(self.skills),
            teams=list(self.teams),
            seniority=self.seniority,
            weight=self.weight,
            capacity=self.capacity,
            daily_capacity=self.most.get("day"),
            time_zone=self.calendar.zone.key,
            open_leads=self.open_leads,
            active=self.active,
        )

    def cannot_take(self, at: datetime) -> str | None:
        """Why no lead can be given to this rep now, by any rule; None when one can."""
        if not self.active:
            return "deactivated"
        if self.capacity is not None and self.open_leads >= self.capacity:
            return "at capacity"
        for cap in self.caps:
            if cap.given >= cap.most:
                return f"at capacity for the {cap.of}"
        if self.calendar.on_leave(at):
            return "on leave"
        return None

    def free_again_at(self, at: datetime) -> datetime | None:
        """When time alone makes that this rep can be given leads again; None when it does not keep them from it."""
        full = [cap.period.end for cap in self.caps if cap.given >= cap.most > 0]
        if self.calendar.on_leave(at):
            full.append(self.calendar.back_from_leave(at))
        return max(full, default=None)

    def counting(self, at: datetime) -> "Rep":
        """The rep in the periods of limits that hold this moment; in those that began since nothing was given yet."""
        known = {cap.of: cap for cap in self.caps}
        caps = (
            _current(known.get(of), Cap(of, most, 0, self.calendar.period(at, of))) for of, most in self.most.items()
        )
        return replace(self, caps=tuple(caps))

    def with_lead(self, at: datetime) -> "Rep":
        """The rep after being given one more lead."""
        caps = tuple(replace(cap, given=cap.given + 1) for cap in self.caps)
        return replace(self, open_leads=self.open_leads + 1, last_assigned_at=at, caps=caps)


def _current(known: Cap | None, begun: Cap) -> Cap:
    return known if known is not None and known.period.start == begun.period.start else begun
