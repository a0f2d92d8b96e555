"""How fast leads were given to reps, accepted and spoken to, and whether reps kept their time, as marks: pure."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime

from services.attribution.pipeline.domain import Assigned, Kind, Mark, Outcome, Owner, Story
from services.attribution.pipeline.funnels import LIFECYCLE, passed_at
from services.attribution.pipeline.lapses import lapse_between

STARTED = "started"
QUALIFIED = "mql"


def answer_marks(story: Story, owner: Owner) -> list[Mark]:
    """From three moments on: when the person was captured, became marketing-qualified, was given to each rep."""
    assigned = sorted(story.assignments, key=lambda one: one.place)
    contacts = sorted(story.contacts)
    accepted = [one.accepted_at for one in assigned if one.accepted_at is not None]
    reached = {
        "assigned": min((one.at for one in assigned), default=None),
        "accepted": min(accepted, default=None),
        "contacted": contacts[0] if contacts else None,
    }
    marks: list[Mark] = []
    qualified_at = passed_at(LIFECYCLE, story.stages).get(QUALIFIED)
    starts: tuple[tuple[Kind, datetime | None], ...] = (("captured", story.captured_at), ("mql", qualified_at))
    for kind, start in starts:
        if start is not None:
            marks += _since(kind, "", start, owner, reached)
    for place, one in enumerate(assigned, 1):
        until = assigned[place].at if place < len(assigned) else None
        theirs = {"accepted": one.accepted_at, "contacted": _first_in(contacts, one.at, until)}
        marks += _since("offered", one.assignment_id, one.at, one.owner, theirs)
        if one.due_at is not None:
            outcome = outcome_of(one, until, erased=story.erased)
            lapse = lapse_between(one.at, one.due_at) if outcome == "pending" else None
            marks.append(Mark("sla", outcome, one.assignment_id, one.at, one.owner, lapse=lapse))
    return marks


def outcome_of(one: Assigned, replaced_at: datetime | None, *, erased: bool) -> Outcome:
    """What became of an offer to be accepted until `due_at`. Who accepts has answered, whatever else is told."""
    assert one.due_at is not None
    if one.accepted_at is not None:
        return "kept" if one.accepted_at <= one.due_at else "breached"
    if one.expired_at is not None:
        return "breached"
    endings: tuple[tuple[datetime | None, Outcome], ...] = ((one.rejected_at, "rejected"), (replaced_at, "replaced"))
    for at, outcome in endings:
        if at is not None:
            return outcome if at <= one.due_at else "breached"
    return "withdrawn" if erased else "pending"


def _since(kind: Kind, ref: str, start: datetime, owner: Owner, reached: dict[str, datetime | None]) -> list[Mark]:
    """What was reached since a start; what had been reached before is reached at once."""
    marks = [Mark(kind, STARTED, ref, start, owner)]
    for step, at in reached.items():
        if at is not None:
            marks.append(Mark(kind, step, ref, start, owner, lapse=lapse_between(start, at)))
    return marks


def _first_in(times: Sequence[datetime], start: datetime, until: datetime | None) -> datetime | None:
    place = bisect_left(times, start)
    if place == len(times) or (until is not None and times[place] >= until):
        return None
    return times[place]
