"""Who can be given leads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.routing.reps.calendar import Calendar
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
    "time_zone": TEXT,
    "open_leads": INTEGER,
    "active": BOOLEAN,
}
"""What an expression may read of a rep."""


@dataclass(frozen=True, slots=True)
class Rep:
    """Someone in sales.

    `weight` is the share of turns in a round robin, `capacity` the most leads held at once (None: any number),
    `seniority` any number, the higher the more senior. `open_leads` counts the leads held now, offered ones included.
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
        if self.calendar.on_leave(at):
            return "on leave"
        return None
