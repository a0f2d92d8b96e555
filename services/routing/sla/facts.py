"""What routing tells about the time reps have. Every fact keeps the lead id its assignment was made with."""

from datetime import datetime, timedelta

from services.routing.assignments.domain import Assignment
from services.routing.sla.domain import Clock
from shared.contacts import Contact
from shared.events import SlaBreached, SlaKept, TouchRecorded
from shared.ids import EventId, TouchId, derived_id


def sla_kept(  # noqa: PLR0913  # what the fact is made of
    assignment: Assignment, clock: Clock, at: datetime, due_at: datetime, took: timedelta, worked: timedelta
) -> SlaKept:
    """The rep was in time."""
    return SlaKept(
        event_id=EventId(derived_id("sla-kept", assignment.assignment_id, clock)),
        lead_id=assignment.lead_id,
        occurred_at=at,
        received_at=at,
        assignment_id=assignment.assignment_id,
        rep_id=assignment.rep_id,
        clock=clock,
        due_at=due_at,
        took_s=int(took.total_seconds()),
        worked_s=int(worked.total_seconds()),
    )


def sla_breached(assignment: Assignment, clock: Clock, due_at: datetime) -> SlaBreached:
    """The time is over; told once, however often it is noticed."""
    return SlaBreached(
        event_id=EventId(derived_id("sla-breached", assignment.assignment_id, clock)),
        lead_id=assignment.lead_id,
        occurred_at=due_at,
        received_at=due_at,
        assignment_id=assignment.assignment_id,
        rep_id=assignment.rep_id,
        clock=clock,
        due_at=due_at,
    )


def contact_made(assignment: Assignment, kind: Contact, at: datetime, received_at: datetime) -> TouchRecorded:
    """A contact of a rep that routing was told of, for all who count touches."""
    touch_id = TouchId(derived_id("rep-contact", assignment.assignment_id, kind, at.isoformat()))
    return TouchRecorded(
        event_id=EventId(derived_id("rep-contact-told", touch_id)),
        lead_id=assignment.person_id,
        occurred_at=at,
        received_at=received_at,
        origin="routing",
        touch_id=touch_id,
        type=kind,
    )
