"""Which call moves a lead that does not move. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.routing.reps.domain import Rep
from shared.ids import LeadId, RepId

Reason = Literal["held", "profile", "offer_overdue", "untouched", "owner_inactive", "parked"]


@dataclass(frozen=True, slots=True)
class Stuck:
    """A lead that does not move; `place` is its own within the list, `rep_id` who has it.

    `grace_until` is when the next step of its clock is taken, where an outage put that off.
    """

    lead_id: LeadId
    reason: Reason
    detail: str
    since: datetime
    place: str
    rep_id: RepId | None = None
    assignment_id: str | None = None
    grace_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fix:
    """The call that moves the lead."""

    method: Literal["POST", "PATCH"]
    path: str
    body: dict[str, Any]


def fix_of(stuck: Stuck, reps: Sequence[Rep], resting: RepId | None, at: datetime) -> Fix | None:
    """Give the lead to the rep with the least to do; where there is no other, have who has it answer.

    `resting` is a rep who is deactivated and could be called back where there is nobody. None where even that is not
    possible: then somebody has to be hired.
    """
    lead = f"/routing/v1/leads/{stuck.lead_id}/assignment"
    others = [rep for rep in reps if rep.active and rep.rep_id != stuck.rep_id]
    if others:
        rep = min(others, key=lambda one: (one.cannot_take(at) is not None, one.open_leads, one.rep_id))
        return Fix("POST", f"{lead}:reassign", {"rep_id": rep.rep_id, "reason": f"was stuck: {stuck.reason}"})
    if stuck.reason == "offer_overdue":
        return Fix("POST", f"{lead}:accept", {"assignment_id": stuck.assignment_id})
    if stuck.reason == "untouched":
        return Fix("POST", f"{lead}:touched", {"type": "call_attempted"})
    if stuck.rep_id is not None or resting is not None:
        return Fix("PATCH", f"/routing/v1/reps/{stuck.rep_id or resting}", {"active": True})
    return None
