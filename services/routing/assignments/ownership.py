"""Whose a lead is: when its stage changes, and when two turn out to be one person. Pure."""

from collections.abc import Sequence
from datetime import datetime

from services.routing.assignments.domain import GIVEN_BY_HAND, Assignment, State
from services.routing.people.domain import Person
from shared.events import Stage

DONE: frozenset[Stage] = frozenset({"customer", "disqualified", "recycled"})
"""Stages at which the work of the rep who accepted is over, so that the lead no longer counts as held."""
WORKED_ON: frozenset[Stage] = frozenset({"opportunity"})
"""Stages that a lead comes back from without having left its rep."""
MERGED, BECAME = "merged", "the lead became"
"""How an assignment's `end_reason` begins where the lead was another rep's, or the work on it over."""


def ended_by(stage: Stage | None) -> tuple[State, ...]:
    """The states in which a lead's assignment ends when it comes to a stage."""
    if stage not in DONE:
        return ()
    return ("accepted", "offered") if stage == "disqualified" else ("accepted",)


def is_over(current: Assignment, who: Person) -> bool:
    """Whether the work on somebody's lead is over, as what is known of who they turned out to be stands.

    A deal takes up a lead again that was set aside, a rep who accepted it since one that was recycled. What was given
    by hand since stays.
    """
    if who.standing is None or current.state not in ended_by(who.stage):
        return False
    if who.stage != "customer" and who.deal is not None:
        return False
    entered = who.standing.entered_at
    since = entered is None or (current.accepted_at or current.assigned_at) > entered
    return not (since and (who.stage == "recycled" or current.strategy == GIVEN_BY_HAND))


def lives_again(ended: Sequence[Assignment], theirs: Sequence[Assignment], who: Person) -> list[Assignment]:
    """Those of the assignments that ended only since their lead was taken for another's; `theirs` are the person's.

    What had lost to one that is still the person's stays ended, and so does what their own stage ended.
    """
    return [
        one
        for one in ended
        if (one.end_reason == MERGED and not any(_had(other, one.ended_at) for other in theirs if other is not one))
        or (str(one.end_reason).startswith(BECAME) and _last(one, theirs) and not _by_own_stage(one, who))
    ]


def _by_own_stage(ended: Assignment, who: Person) -> bool:
    """Whether the person came to a stage at or after the end; nothing is told of a lead while it is another's."""
    own = None if who.standing is None else who.standing.entered_at
    return is_over(ended, who) or (own is not None and ended.ended_at is not None and own >= ended.ended_at)


def _had(one: Assignment, at: datetime | None) -> bool:
    return at is not None and one.assigned_at <= at and (one.ended_at is None or one.ended_at > at)


def _last(one: Assignment, theirs: Sequence[Assignment]) -> bool:
    return all(other.assigned_at <= one.assigned_at for other in theirs)


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
