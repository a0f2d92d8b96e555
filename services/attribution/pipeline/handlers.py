"""What the reports of the pipeline learn from each fact: it is stored, and whoever it is about is counted anew.

What touches, profiles, conversions and deals say is stored by the features that own them, whose routes come first.
"""

from collections.abc import Sequence

from services.attribution.conversions.queries import lock_conversions
from services.attribution.credits.crediting import recredit
from services.attribution.journeys.queries import converting_among, lock_leads
from services.attribution.models.catalogue import Catalogue
from services.attribution.pipeline import queries
from services.attribution.pipeline.following import put_off
from services.attribution.pipeline.queries import Answer
from shared.db import Tx
from shared.events import (
    ConversionRecorded,
    DealChanged,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    RefundRecorded,
    StageChanged,
)
from shared.ids import LeadId


async def on_stages(events: Sequence[StageChanged], tx: Tx) -> None:
    """Leads went on, or back, in the lifecycle."""
    told = {(event.lead_id, event.revision): event for event in sorted(events, key=_received)}
    await queries.put_stages(tx.connection, [told[name] for name in sorted(told)])
    put_off(tx, {event.lead_id for event in events})


async def on_assignments(events: Sequence[LeadAssigned], tx: Tx, catalogue: Catalogue) -> None:
    """Leads were given to reps; after a merge, the assignment that goes on is told anew.

    Conversions count under the rep who had the lead by then.
    """
    newest = {event.assignment_id: event for event in sorted(events, key=lambda event: event.revision)}
    await lock_leads(tx.connection, {event.lead_id for event in events})
    changed = await queries.put_assignments(tx.connection, [newest[name] for name in sorted(newest)])
    if converting := await converting_among(tx.connection, changed):
        await recredit(tx.connection, catalogue, [(lead_id, None) for lead_id in converting])
    if changed:
        put_off(tx, changed)


async def on_answers(events: Sequence[Answer], tx: Tx) -> None:
    """Reps accepted or rejected what they were offered, or did neither in time."""
    if concerned := await queries.put_answers(tx.connection, events):
        put_off(tx, concerned)


async def on_captured(events: Sequence[LeadCaptured], tx: Tx) -> None:
    """People told who they are."""
    put_off(tx, {event.lead_id for event in events})


async def on_deals(events: Sequence[DealChanged], tx: Tx) -> None:
    """Deals were opened, moved, won, lost; each of their changes is kept."""
    told = {(event.deal_id, event.revision): event for event in events}
    await queries.put_steps(tx.connection, [told[name] for name in sorted(told)])
    before = await queries.counted_for(tx.connection, [event.deal_id for event in events])
    put_off(tx, before | {event.lead_id for event in events})


async def on_conversions(events: Sequence[ConversionRecorded], tx: Tx) -> None:
    """Something was paid; a correction may say that it was somebody else."""
    before = await queries.counted_for(tx.connection, [event.conversion_id for event in events])
    put_off(tx, before | {event.lead_id for event in events})


async def on_refunds(events: Sequence[RefundRecorded], tx: Tx) -> None:
    """Something was paid back."""
    known = await lock_conversions(tx.connection, [event.conversion_id for event in events])
    if known:
        put_off(tx, {one.lead_id for one in known})


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Nobody has to answer to an erased person any more."""
    put_off(tx, {event.lead_id})


async def on_identity_changed(event: IdentityLinked | LeadMerged | LeadUnmerged, tx: Tx, affected: set[LeadId]) -> None:
    """People were joined or parted: everyone affected is counted anew."""
    other = event.anonymous_lead_id if isinstance(event, IdentityLinked) else event.from_lead_id
    put_off(tx, {*affected, event.lead_id, other})


def _received(event: StageChanged) -> tuple[object, ...]:
    return event.received_at, event.event_id
