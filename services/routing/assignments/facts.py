"""What routing tells about assignments. Every fact keeps the lead id its assignment was made with."""

from collections.abc import Sequence
from datetime import datetime

import orjson

from services.routing.assignments.domain import Assignment
from shared.events import AssignmentAccepted, AssignmentExpired, AssignmentRejected, LeadAssigned
from shared.ids import AssignmentId, EventId, derived_id


def assignment_id_of(cause_id: EventId) -> AssignmentId:
    """The id of the decision that follows from a fact: the same at every replay."""
    return AssignmentId(derived_id("assignment", cause_id))


def lead_assigned(assignment: Assignment, teams: Sequence[str], *, kept_by: EventId | None = None) -> LeadAssigned:
    """A rep of these teams is responsible from now on; `kept_by` is the merge after which this assignment goes on."""
    parts = (kept_by,) if kept_by is not None else ()
    return LeadAssigned(
        event_id=EventId(derived_id("lead-assigned", assignment.assignment_id, *parts)),
        lead_id=assignment.lead_id if kept_by is None else assignment.person_id,
        occurred_at=assignment.assigned_at,
        received_at=assignment.assigned_at,
        assignment_id=assignment.assignment_id,
        revision=assignment.revision,
        rep_id=assignment.rep_id,
        queue=assignment.queue,
        strategy=assignment.strategy,
        rules_version=assignment.rules_version,
        due_at=assignment.due_at,
        reason=assignment.reason,
        trace=orjson.dumps(list(assignment.trace)).decode(),
        teams=tuple(teams),
    )


def assignment_accepted(assignment: Assignment, at: datetime) -> AssignmentAccepted:
    """The rep took the lead."""
    return AssignmentAccepted(
        event_id=EventId(derived_id("assignment-accepted", assignment.assignment_id)),
        lead_id=assignment.lead_id,
        occurred_at=at,
        received_at=at,
        assignment_id=assignment.assignment_id,
        rep_id=assignment.rep_id,
    )


def assignment_rejected(assignment: Assignment, reason: str, at: datetime) -> AssignmentRejected:
    """The rep gave the lead back."""
    return AssignmentRejected(
        event_id=EventId(derived_id("assignment-rejected", assignment.assignment_id)),
        lead_id=assignment.lead_id,
        occurred_at=at,
        received_at=at,
        assignment_id=assignment.assignment_id,
        rep_id=assignment.rep_id,
        reason=reason,
    )


def assignment_expired(assignment: Assignment, at: datetime) -> AssignmentExpired:
    """The rep did not answer in time."""
    return AssignmentExpired(
        event_id=EventId(derived_id("assignment-expired", assignment.assignment_id)),
        lead_id=assignment.lead_id,
        occurred_at=at,
        received_at=at,
        assignment_id=assignment.assignment_id,
        rep_id=assignment.rep_id,
    )
