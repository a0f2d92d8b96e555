"""Changes of the books outside a decision; whoever makes them holds the dispatcher's lock."""

from datetime import datetime

from services.routing.assignments.domain import Assignment
from services.routing.fairness import queries
from services.routing.fairness.domain import Kind
from services.routing.fairness.entries import gave_back, given
from shared.db import Connection
from shared.ids import RepId


async def give_back(connection: Connection, assignment: Assignment, kind: Kind, why: str, at: datetime) -> None:
    """A lead was taken from its rep: what it cost in turns, if anything, comes back."""
    paid = await queries.paid_in(connection, assignment.assignment_id)
    if paid is not None:
        queue, rep_id = paid
        await queries.write_apart(connection, queue, [gave_back(assignment, rep_id, kind, why, at)])


async def pay_again(connection: Connection, assignment: Assignment, why: str, at: datetime) -> None:
    """A lead that was taken from its rep is theirs once more."""
    paid = await queries.paid_in(connection, assignment.assignment_id)
    if paid is not None:
        await queries.write_apart(connection, paid[0], [given(assignment, "unmerged", why, at)])


async def pay_instead(connection: Connection, assignment: Assignment, rep_id: RepId, at: datetime) -> None:
    """The lead went to another rep (`assignment` names them) than to `rep_id`, whom it was counted for."""
    paid = await queries.paid_in(connection, assignment.assignment_id)
    if paid is not None and paid[1] == rep_id:
        entries = [
            gave_back(assignment, rep_id, "reassigned", "was published as another's", at),
            given(assignment, "given", "was published as theirs", at),
        ]
        await queries.write_apart(connection, paid[0], entries)
