"""The life of a broadcast, its pace, and how long it still takes. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.nurture.enrolments.domain import Run
from services.nurture.errors import WrongBroadcastState
from services.nurture.sequences.catalogue import BROADCAST
from shared.ids import EventId, LeadId, SequenceId, derived_id, new_id

State = Literal["draft", "running", "stopped", "cancelled", "done"]
Shown = Literal["draft", "scheduled", "listing", "running", "stopped", "cancelled", "done"]
Action = Literal["change", "start", "stop", "continue", "cancel"]
LATE = timedelta(hours=12)
OVERDUE = "its time passed while nothing ran: continue it if it still makes sense"
STOPPED = "the broadcast is stopped"
CANCELLED = "the broadcast was cancelled"
LEFT = "not in the audience any more"
SAME_ADDRESS = "another lead with the same address gets it"
RATE = "the rate of the broadcast"

WINDOW = 1_000
"""At most so many of its people are before the sender at a time: others are served meanwhile, and a stop is short."""
AHEAD = timedelta(seconds=10)
"""With a rate, turns are given so far ahead."""
TURN_LASTS = timedelta(minutes=1)
"""A turn that was not taken by then is over: the message gets a new one."""
STOP_LASTS = timedelta(days=1)
A_MINUTE = timedelta(minutes=1)

_NEXT: dict[Action, dict[State, State]] = {
    "change": {"draft": "draft"},
    "start": {"draft": "running"},
    "stop": {"running": "stopped", "stopped": "stopped"},
    "continue": {"stopped": "running", "running": "running"},
    "cancel": {"draft": "cancelled", "running": "cancelled", "stopped": "cancelled", "cancelled": "cancelled"},
}
_INSTEAD: dict[State, str] = {
    "draft": "it has not been started: start it",
    "running": "it has been started: stop it, continue it or cancel it",
    "stopped": "it is stopped: continue it or cancel it",
    "cancelled": "it was cancelled: make another one",
    "done": "it is done: make another one",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """When one of its people comes to the sender."""

    lead_id: LeadId
    at: datetime


@dataclass(frozen=True, slots=True)
class Pace:
    """How many are given turns now, from when on, and at which distance."""

    count: int
    first: datetime
    interval: timedelta

    @property
    def next(self) -> datetime:
        """The first turn that is left."""
        return self.first + self.count * self.interval


def next_state(state: State, action: Action) -> State:
    """The state after an action; the same one where it was done already. Raises WrongBroadcastState."""
    after = _NEXT[action].get(state)
    if after is None:
        raise WrongBroadcastState(_INSTEAD[state])
    return after


def shown(state: State, send_at: datetime | None, listed_at: datetime | None, now: datetime) -> Shown:
    """The state as people see it."""
    if state != "running":
        return state
    if send_at is not None and send_at > now:
        return "scheduled"
    return "listing" if listed_at is None else "running"


def pace(interval: timedelta | None, free_from: datetime | None, now: datetime, room: int) -> Pace:
    """The turns to give now. `free_from` is the first turn that is not given; one that passed is lost, not made up for.

    Without a rate everybody that there is room for may come at once.
    """
    if interval is None:
        return Pace(room, now, timedelta())
    first = max(free_from or now, now)
    left = (now + AHEAD - first) // interval + 1
    return Pace(max(0, min(room, left)), first, interval)


def new_broadcast_id() -> SequenceId:
    """The id of a broadcast, and of the sequence that its people run through."""
    return SequenceId(f"{BROADCAST}{new_id()}")


def run_of(broadcast_id: SequenceId, version: int, lead_id: LeadId, begun_at: datetime, now: datetime) -> Run:
    """The passage of one person through a broadcast: there is never a second one."""
    return Run(
        enrolment_id=derived_id("enrolment", broadcast_id, lead_id, "1"),
        sequence_id=broadcast_id,
        version=version,
        lead_id=lead_id,
        run=1,
        active=True,
        triggered_at=begun_at,
        started_at=now,
    )


def cause_of(run: Run) -> EventId:
    """What a run was caused by: a broadcast's turn, no fact of a lead."""
    return EventId(f"{run.sequence_id}:{run.lead_id}")


def seconds_left(remaining: int, per_minute: float, interval: timedelta | None, *, waits: bool) -> int | None:
    """How long the rest takes at the rate of the last minute, and no faster than the one that is set.

    None when nobody knows: it waits for something else than its turns, or none left in a minute that had turns.
    """
    if not remaining:
        return 0
    by_turns = interval or timedelta()
    if waits or (not per_minute and by_turns < A_MINUTE):
        return None
    lately = A_MINUTE / per_minute if per_minute else by_turns
    return round(remaining * max(lately, by_turns).total_seconds())


_PARTICULARS = re.compile(r"\d[\d:.,T+Z-]*")


def kind_of(reason: str) -> str:
    """A reason without its times and numbers, so that those that mean the same are counted together."""
    return _PARTICULARS.sub("…", reason)
