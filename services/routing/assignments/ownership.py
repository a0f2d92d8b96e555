"""Whose a lead is: when its stage changes, and when two turn out to be one person. Pure."""

from collections.abc import Sequence

from services.routing.assignments.domain import GIVEN_BY_HAND, Assignment
from shared.events import Stage

DONE: frozenset[Stage] = frozenset({"customer", "disqualified", "recycled"})
"""Stages at which the work of the rep who accepted is over, so that the lead no longer counts as held."""
WORKED_ON: frozenset[Stage] = frozenset({"opportunity"})
"""Stages that a lead comes back from without having left its rep."""


def one_owner(current: Sequence[Assignment]) -> Assignment:
    """Which of the current assignments of people who turned out to be one goes on.

    An accepted one before an offered one, then the one made first: whoever has known the person longest. A total
    order, so that the result does not depend on the order of merges.
    """
    return min(current, key=lambda one: (one.state != "accepted", one.assigned_at, one.assignment_id))


def wants_rep(current: Assignment | None, previous: Stage | None, *, routed_before: bool) -> bool:
    """Whether a lead that entered a stage at which leads are routed is to be given to a rep now.

    One that has a current assignment is not, unless its rep accepted it and it had left since: then it comes back.
    One that was given by hand stays where it is.
    """
    if current is None:
        return True
    left = not routed_before and previous is not None and previous not in WORKED_ON
    return left and current.state == "accepted" and current.strategy != GIVEN_BY_HAND
