"""Which steps a clock takes, and what is to be done when one is due. Pure.

An assignment has up to two clocks, one until it is accepted and one until the rep is first in touch. Each is a ladder
of steps at shares of its time, counted in working minutes of the rep. A clock is never stopped from outside: when a
step is due, the assignment says whether it still counts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from services.routing.assignments.domain import Assignment
from services.routing.reps.calendar import Calendar
from services.routing.rules.document import Audience
from services.routing.rules.domain import Escalation, Sla
from shared.ids import AssignmentId

Clock = Literal["accept", "touch"]
Act = Literal["remind", "breach", "escalate", "reroute"]
END = 100
REMIND_AT = (50, 80)
LADDER = (Escalation(END, ("rep", "owner")), Escalation(150, ("manager",)), Escalation(200, ("manager",), reroute=True))
"""On breach the rep and the owner are told, half the time later the manager, after all of it again somebody else."""
LATE = timedelta(seconds=60)
"""A step found this late was not watched: the worker, or what it needs, was away."""
GRACE = (5, 30)
GRACE_SHARE = 4
"""Working minutes that a rep is given then: a quarter of the time, at least and at most these."""
SPREAD = timedelta(minutes=15)
"""Over this the steps that were missed are spread, so that not every lead changes hands at once."""
MOST_GRACES = 3


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at a share of the time, in per cent; `notify` says who is told."""

    at: int
    act: Act
    notify: tuple[Audience, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"at": self.at, "act": self.act, "notify": list(self.notify)}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Step":
        """From how it is stored."""
        return cls(stored["at"], stored["act"], tuple(stored["notify"]))

    @property
    def is_breach(self) -> bool:
        """Whether the time is over with this step."""
        return self.at == END


@dataclass(frozen=True, slots=True)
class Running:
    """A clock of an assignment, with the steps left to take, the first of which is due at `due_at`.

    `minutes` is 0 where only the end is known, from a published fact. `delay` is by how much an outage put it off, and
    `graces` how often.
    """

    assignment_id: AssignmentId
    clock: Clock
    started_at: datetime
    minutes: int
    steps: tuple[Step, ...]
    due_at: datetime
    delay: timedelta = timedelta()
    graces: int = 0


@dataclass(frozen=True, slots=True)
class Over:
    """The clock is of no use any more: it was answered, or the assignment has ended."""


@dataclass(frozen=True, slots=True)
class Later:
    """The clock goes on as this one."""

    running: Running


@dataclass(frozen=True, slots=True)
class Fire:
    """A step is to be taken now; `after` is the clock after it, if any step is left."""

    step: Step
    after: Running | None


def ladder(sla: Sla, clock: Clock) -> tuple[Step, ...]:
    """The steps of a clock, in order."""
    reminders = tuple(Step(at, "remind", ("rep",)) for at in (REMIND_AT if sla.remind_at is None else sla.remind_at))
    return (*reminders, *_after_breach(sla, clock))


def _after_breach(sla: Sla, clock: Clock) -> tuple[Step, ...]:
    on_breach = sla.on_breach or ("escalate" if sla.escalate is not None else None)
    match on_breach:
        case "reroute":
            return (Step(END, "reroute", ("rep",)),)
        case "none":
            return (Step(END, "breach"),)
        case "escalate":
            return _steps_of(sla.escalate or LADDER)
        case None if clock == "accept":
            return (Step(END, "reroute", ("rep",)),)
        case None:
            return _steps_of([one for one in LADDER if not one.reroute])


def _steps_of(escalations: Sequence[Escalation]) -> tuple[Step, ...]:
    made = [
        Step(one.at, "reroute" if one.reroute else "breach" if one.at == END else "escalate", one.notify)
        for one in escalations
    ]
    return tuple(made) if made[0].at == END else (Step(END, "breach"), *made)


def started(assignment: Assignment, sla: Sla, calendar: Calendar) -> list[Running]:
    """The clocks that begin to run with an assignment."""
    made = []
    limits: tuple[tuple[Clock, int | None, datetime | None], ...] = (
        ("accept", sla.accept_minutes, assignment.due_at),
        ("touch", sla.touch_minutes, assignment.touch_due_at),
    )
    for clock, minutes, end in limits:
        if minutes is None or end is None:
            continue
        at = assignment.assigned_at
        running = _at_next(Running(assignment.assignment_id, clock, at, minutes, ladder(sla, clock), at), calendar, end)
        if running is not None:
            made.append(running)
    return made


def known_by_end(assignment: Assignment) -> list[Running]:
    """The clock of an offer of which only the end is known."""
    if assignment.due_at is None or assignment.state != "offered" or not assignment.is_current:
        return []
    step = Step(END, "reroute", ("rep",))
    return [
        Running(assignment.assignment_id, "accept", assignment.assigned_at, 0, (step,), assignment.due_at),
    ]


def look(running: Running, assignment: Assignment, calendar: Calendar, at: datetime) -> Over | Later | Fire:
    """What a clock whose step is due does now.

    Reminders that a later step has overtaken are passed over. What is found `LATE` was missed in an outage: the step,
    and all after it, is put off by a grace in the rep's working time and a bit that differs by assignment.
    """
    if not assignment.is_current or _is_answered(running.clock, assignment):
        return Over()
    current = running
    while current.steps[0].act == "remind" and (following := _step(current, calendar)) is not None:
        if following.due_at > at:
            break
        current = following
    step = current.steps[0]
    if step.act != "remind" and at - current.due_at > LATE and current.graces < MOST_GRACES:
        return Later(_put_off(current, calendar, at))
    if current.due_at > at or (step.act == "reroute" and running.steps[0].act != "reroute"):
        return Later(current)
    return Fire(step, _step(current, calendar))


def _is_answered(clock: Clock, assignment: Assignment) -> bool:
    return assignment.state != "offered" if clock == "accept" else assignment.touched_at is not None


def _step(running: Running, calendar: Calendar) -> Running | None:
    """The clock with its first step taken; None when no other is left, or none that will ever be due."""
    if len(running.steps) == 1:
        return None
    return _at_next(replace(running, steps=running.steps[1:]), calendar, None)


def _at_next(running: Running, calendar: Calendar, end: datetime | None) -> Running | None:
    """The clock, due when its first step is; `end` is when its time is over, where that is known.

    None for a step that will never be due, since the rep does not work that much.
    """
    share = running.steps[0].at
    minutes = -(-running.minutes * share // END)  # whole minutes, since calendars count in them
    due = end if share == END and end is not None else calendar.after_working(running.started_at, minutes)
    return None if due is None else replace(running, due_at=due + running.delay)


def _put_off(running: Running, calendar: Calendar, at: datetime) -> Running:
    least, most = GRACE
    grace = min(max(running.minutes // GRACE_SHARE, least), most)
    due = (calendar.after_working(at, grace) or at) + SPREAD * _fraction(running.assignment_id)
    return replace(running, due_at=due, delay=running.delay + (due - running.due_at), graces=running.graces + 1)


def _fraction(assignment_id: AssignmentId) -> float:
    """A number from 0 to 1 that is the assignment's own."""
    return int.from_bytes(hashlib.sha256(assignment_id.encode()).digest()[:4]) / 2**32


def worked_between(calendar: Calendar, since: datetime, until: datetime) -> timedelta:
    """How much of a stretch of time was working time."""
    worked = timedelta()
    for window in calendar.windows(since):
        if window.start >= until:
            break
        worked += min(window.end, until) - window.start
    return worked
