"""The entries that are not turns: a lead taken back, given by hand, or a balance set right by a person."""

from datetime import datetime

from services.routing.assignments.domain import Assignment
from services.routing.fairness.domain import LEAD, Entry, Kind
from shared.ids import RepId


def gave_back(assignment: Assignment, rep_id: RepId, kind: Kind, why: str, at: datetime) -> Entry:
    """The price of a lead comes back to the rep who paid it."""
    return Entry(kind, rep_id, at, LEAD, why, assignment_id=assignment.assignment_id, lead_id=assignment.person_id)


def given(assignment: Assignment, kind: Kind, why: str, at: datetime) -> Entry:
    """A rep pays for a lead that did not come by a turn."""
    return Entry(
        kind, assignment.rep_id, at, -LEAD, why, assignment_id=assignment.assignment_id, lead_id=assignment.person_id
    )
