"""Folds of what others tell about people: the same result in every order of arrival."""

from collections.abc import Sequence
from typing import Any

from services.nurture.enrolments.domain import ACCEPTANCE, CONVERSION, HANDED_OFF
from services.nurture.enrolments.facts import acceptance_fact, conversion_fact, handoff_fact
from services.nurture.parts import Parts
from services.nurture.people import queries
from shared.db import Tx
from shared.events import (
    AssignmentAccepted,
    ConsentChanged,
    ConversionRecorded,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadHandedOff,
    LeadMerged,
    LeadPersonal,
    LeadUnmerged,
    SegmentEntered,
    SegmentLeft,
    StageChanged,
)
from shared.ids import LeadId
from shared.rules import present

MOVED = "persons whose ids moved"
IdentityChange = IdentityLinked | LeadMerged | LeadUnmerged


async def note_moved(_event: IdentityChange, tx: Tx, persons: set[LeadId]) -> None:
    """Remember the persons between whom a merge or a link moves ids."""
    tx.memory.setdefault(MOVED, {}).update(dict.fromkeys(persons))


async def lock_moved(_events: Sequence[IdentityChange], tx: Tx) -> None:
    """Lock them as they were and as they are now, all in one statement.

    Who is deciding about one of them by what was so before commits first, and is seen; who comes later looks again.
    """
    await tx.connection.execute(queries.LOCK, sorted(tx.memory.get(MOVED, ())))


async def on_profiles(events: Sequence[LeadCaptured], tx: Tx, parts: Parts) -> None:
    """Keep each id's newest profile, sealed. A block that will not open when it is needed is refused here."""
    texts = await parts.runtime.keys.open_many(tx.connection, [(event.lead_id, event.personal) for event in events])
    for text in texts:
        LeadPersonal.model_validate_json(text or b"{}")
    await queries.save_profiles(tx.connection, [(event, _fields(event)) for event in events])


def _fields(event: LeadCaptured) -> dict[str, Any]:
    return present(
        company=event.company,
        country=event.country,
        region=event.region,
        industry=event.industry,
        employees=event.employees,
        annual_revenue=event.annual_revenue,
        use_case=event.use_case,
        free_mail=event.free_mail,
    )


async def on_consents(events: Sequence[ConsentChanged], tx: Tx) -> None:
    """Keep each id's latest word on each channel."""
    await queries.save_consents(tx.connection, events)


async def on_stages(events: Sequence[StageChanged], tx: Tx) -> None:
    """Keep each id's newest stage."""
    await queries.save_stages(tx.connection, events)


async def on_segments(events: Sequence[SegmentEntered | SegmentLeft], tx: Tx) -> None:
    """Keep who is in which segment."""
    await queries.save_segments(tx.connection, events)


async def on_conversion(event: ConversionRecorded, tx: Tx) -> None:
    """Keep a success: it may arrive before the run that it ends."""
    await queries.save_milestone(tx.connection, CONVERSION, event.conversion_id, event.position, conversion_fact(event))


async def on_accepted(event: AssignmentAccepted, tx: Tx) -> None:
    """Keep that a rep took the lead: it may arrive before the run that it ends."""
    await queries.save_milestone(tx.connection, ACCEPTANCE, event.assignment_id, event.position, acceptance_fact(event))


async def on_handed_off(event: LeadHandedOff, tx: Tx) -> None:
    """Keep that a customer was handed over: it may arrive before the run that it ends."""
    await queries.save_milestone(tx.connection, HANDED_OFF, event.deal_id, event.position, handoff_fact(event))


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Delete the profile; each id of the person has its own erasure."""
    await queries.forget(tx.connection, [event.lead_id])
