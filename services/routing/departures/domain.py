"""What becomes of the leads of a rep who leaves."""

from dataclasses import dataclass
from typing import Literal

from shared.ids import AssignmentId, LeadId, RepId

Became = Literal["rerouted", "held", "kept"]
"""Given to another rep; waiting for one; still with the rep who left, since nobody else can take it."""
AT_ONCE = 100
"""So many leads are given to others in one transaction, since nobody else decides meanwhile."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A lead of a rep who left, and what became of it."""

    lead_id: LeadId
    assignment_id: AssignmentId
    state: str
    became: Became
    rep_id: RepId | None
    next_assignment_id: AssignmentId | None
    why: str
