"""People from whom a sequence is kept, so that what it does can be measured."""

from collections.abc import Sequence
from datetime import datetime

from services.nurture.enrolments.domain import Fact, Run
from services.nurture.experiments import queries
from services.nurture.experiments.domain import is_held_out
from services.nurture.people.domain import Person
from services.nurture.sequences.domain import Plan
from shared.db import Tx
from shared.events import EnrolmentStarted
from shared.ids import EventId, derived_id

HELD_OUT = "held out: the sequence is kept from this person, so that what it does can be measured"


async def keep_out(  # noqa: PLR0913  # who would enter what, and by what
    tx: Tx, plan: Plan, person: Person, runs: Sequence[Run], fact: Fact, now: datetime
) -> bool:
    """Whether the sequence is kept from a person who would enter it now; the first time that is written down and told.

    `runs` are the person's of this sequence. What was decided at the first one stays for those after it.
    """
    if plan.holdout is None:
        return False
    if runs:
        return await queries.was_held_out(tx.connection, plan.sequence_id, person.ids)
    if not is_held_out(plan.sequence_id, person.person_id, plan.holdout.percent):
        return False
    enrolment_id = derived_id("enrolment", plan.sequence_id, person.person_id, "1")
    event = EnrolmentStarted(
        event_id=EventId(f"enrolment-started:{enrolment_id}"),
        lead_id=person.person_id,
        occurred_at=now,
        received_at=now,
        enrolment_id=enrolment_id,
        sequence_id=plan.sequence_id,
        sequence_version=plan.version,
        run=1,
        cause_event_id=fact.event_id,
        triggered_at=fact.occurred_at,
        held_out=True,
    )
    if await queries.save_held_out(tx.connection, event, HELD_OUT):
        tx.emit(event)
    return True


async def restore(event: EnrolmentStarted, tx: Tx) -> None:
    """Our own decision, read back: put back where it is not here."""
    await queries.save_held_out(tx.connection, event, HELD_OUT)
