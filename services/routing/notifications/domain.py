"""What reps may be told and how they want it, what it says, and what became of it. Pure.

A message names the lead by a link alone: who may see the person is for the page behind it to decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from services.routing.assignments.domain import Assignment
from shared.ids import LeadId, RepId, derived_id

Channel = Literal["email", "slack", "webhook"]
Kind = Literal["assigned", "claimable", "reminder", "breach", "escalation", "reassigned", "sequence"]
State = Literal["planned", "sent", "failed", "unknown", "dropped"]
KINDS: tuple[Kind, ...] = get_args(Kind)
USUAL: tuple[Channel, ...] = ("email",)
"""How a rep is told who has said nothing about it."""
TRIES = 8
LONGEST_PAUSE = timedelta(minutes=15)
CLAIM_FOR = timedelta(seconds=60)
CALLING_S = 20.0
OF_ACTS: Mapping[str, Kind] = {
    "remind": "reminder",
    "breach": "breach",
    "escalate": "escalation",
    "reroute": "reassigned",
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a rep wants to be told: channels by kind; a kind that is not named is told as usual."""

    channels: Mapping[str, Sequence[Channel]]
    slack_user_id: str | None = None
    slack_url: str | None = None
    endpoint_id: str | None = None

    def of(self, kind: Kind) -> tuple[Channel, ...]:
        """The channels for a kind."""
        return tuple(self.channels.get(kind, USUAL))


@dataclass(frozen=True, slots=True)
class Told:
    """What a message says. `offers` says whether it can be answered with accept and reject, or with claim."""

    subject: str
    text: str
    link: str
    offers: Literal["answer", "claim"] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a try to tell somebody; `retry_after` only where it certainly was not told."""

    state: State
    reason: str
    retry_after: timedelta | None = None
    place: tuple[str, str] | None = None


def kind_of(written: str) -> Kind:
    """The kind that a notice's name stands for: `assigned`, or a clock's name and what it does."""
    known: dict[str, Kind] = {kind: kind for kind in KINDS}
    return known.get(written) or OF_ACTS[written.rpartition("_")[2]]


def notification_id(about: str, kind: str, step: int, rep_id: RepId, channel: Channel) -> str:
    """The same id whenever it is decided that a rep is told this by this channel."""
    return derived_id("rep-notification", about, kind, str(step), rep_id, channel)


def over(kind: str, assignment: Assignment | None) -> str | None:
    """Why an assignment need not be told of any more; None while it must."""
    if assignment is None:
        return None
    if kind_of(kind) == "reassigned":
        return None
    if not assignment.is_current:
        return f"the assignment has ended: {assignment.end_reason}"
    if (kind == "assigned" or kind.startswith("accept_")) and assignment.state != "offered":
        return "it was accepted by then"
    if kind.startswith("touch_") and assignment.touched_at is not None:
        return "the rep was in touch by then"
    return None


def told(  # noqa: PLR0913  # what a message is made of
    kind: str,
    step: int,
    *,
    assignment: Assignment | None,
    rep_name: str,
    is_for_rep: bool,
    zone: ZoneInfo,
    link: str,
) -> Told:
    """What is said to whoever is told, in their own time zone."""
    due = _due(kind, assignment)
    by = f" by {due.astimezone(zone):%a %d %b, %H:%M}" if due is not None else ""
    whose = "A lead of yours" if is_for_rep else f"A lead of {' '.join(rep_name.split())}"
    first = kind.partition("_")[0]
    missing = "not accepted" if first == "accept" else "not contacted"
    match kind_of(kind):
        case "assigned":
            return Told("A new lead is yours", f"A new lead was given to you. Please accept it{by}.", link, "answer")
        case "claimable":
            return Told("A lead is free to claim", "The first to claim it has it.", link, "claim")
        case "reminder":
            text = f"{whose} is {missing} yet; {step} % of the time is over. It is due{by}."
            return Told(f"Reminder: {whose[0].lower()}{whose[1:]} waits", text, link, _offer(assignment, is_for_rep))
        case "breach":
            text = f"{whose} was {missing} in time; it was due{by}."
            return Told(f"Overdue: {whose[0].lower()}{whose[1:]}", text, link, _offer(assignment, is_for_rep))
        case "escalation":
            text = f"{whose} is still {missing}, {step} % of its time after it came in; it was due{by}."
            return Told(f"Still overdue: {whose[0].lower()}{whose[1:]}", text, link)
        case "sequence":
            return Told("A sequence has something to say", "What it was is not known any more.", link)
        case "reassigned":
            text = f"{whose} was {missing} in time; it was due{by}, and goes to somebody else."
            return Told("A lead changes hands", text, link)


def _offer(assignment: Assignment | None, is_for_rep: bool) -> Literal["answer"] | None:  # one of two
    return "answer" if is_for_rep and assignment is not None and assignment.state == "offered" else None


def _due(kind: str, assignment: Assignment | None) -> datetime | None:
    if assignment is None:
        return None
    return assignment.touch_due_at if kind.startswith("touch_") else assignment.due_at


def data_of(  # noqa: PLR0913  # what a webhook tells
    about: str, kind: str, step: int, rep_id: RepId, lead_id: LeadId, assignment: Assignment | None, link: str
) -> dict[str, object]:
    """What a webhook is told: ids and times, nothing of the person."""
    return {
        "kind": kind_of(kind),
        "what": kind,
        "percent": step,
        "about": about,
        "rep_id": rep_id,
        "lead_id": lead_id,
        "link": link,
        "assignment_id": assignment.assignment_id if assignment else None,
        "state": assignment.state if assignment else None,
        "due_at": assignment.due_at if assignment else None,
        "touch_due_at": assignment.touch_due_at if assignment else None,
    }


def pause_before(attempt: int) -> timedelta:
    """How long to wait before another try to say what certainly was not said."""
    return min(timedelta(seconds=5 * 2**attempt), LONGEST_PAUSE)
