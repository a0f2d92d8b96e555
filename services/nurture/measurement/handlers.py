"""Folds of what others tell about the results of messages: the same in every order of arrival."""

from collections.abc import Sequence

from services.nurture.measurement import queries
from shared.db import Tx
from shared.events import (
    ConversionRecorded,
    CreditsChanged,
    IdentityLinked,
    LeadMerged,
    LeadUnmerged,
    RefundRecorded,
    TouchRecorded,
    TouchWithdrawn,
)
from shared.withdrawals import keep_withdrawals

REPLIES = frozenset({"email_replied", "sms_replied", "whatsapp_replied"})


async def on_touches(events: Sequence[TouchRecorded], tx: Tx) -> None:
    """Keep replies."""
    replies = [event for event in events if event.type in REPLIES]
    await queries.save_replies(tx.connection, replies)
    await queries.note(tx.connection, {event.lead_id for event in replies})


async def on_withdrawals(events: Sequence[TouchWithdrawn], tx: Tx) -> None:
    """Keep that touches were no person's: they count in what is raw, and no more in what is not."""
    await keep_withdrawals(tx.connection, events)
    named = [(event.origin, str(event.touch_id)) for event in events]
    await queries.note(tx.connection, await queries.replied_by(tx.connection, named))


async def on_refunds(events: Sequence[RefundRecorded], tx: Tx) -> None:
    """Keep what was given back."""
    await queries.save_refunds(tx.connection, events)
    concerned = await queries.converted_by(tx.connection, [event.conversion_id for event in events])
    await queries.note(tx.connection, concerned)


async def on_conversions(events: Sequence[ConversionRecorded], tx: Tx) -> None:
    """What these people converted after is counted anew."""
    await queries.note(tx.connection, {event.lead_id for event in events})


async def on_identity(event: IdentityLinked | LeadMerged | LeadUnmerged, tx: Tx) -> None:
    """Whose replies, conversions and messages these are has changed."""
    other = event.anonymous_lead_id if isinstance(event, IdentityLinked) else event.from_lead_id
    await queries.note(tx.connection, {event.lead_id, other})


async def on_credits(event: CreditsChanged, tx: Tx) -> None:
    """Keep what opens and clicks of messages earned."""
    await queries.save_earnings(tx.connection, event)
