"""Folds of what others tell about the results of messages: the same in every order of arrival."""

from collections.abc import Sequence

from services.nurture.measurement import queries
from shared.db import Tx
from shared.events import CreditsChanged, RefundRecorded, TouchRecorded, TouchWithdrawn
from shared.withdrawals import keep_withdrawals

REPLIES = frozenset({"email_replied", "sms_replied", "whatsapp_replied"})


async def on_touches(events: Sequence[TouchRecorded], tx: Tx) -> None:
    """Keep replies."""
    await queries.save_replies(tx.connection, [event for event in events if event.type in REPLIES])


async def on_withdrawals(events: Sequence[TouchWithdrawn], tx: Tx) -> None:
    """Keep that touches were no person's: they count in what is raw, and no more in what is not."""
    await keep_withdrawals(tx.connection, events)


async def on_refunds(events: Sequence[RefundRecorded], tx: Tx) -> None:
    """Keep what was given back."""
    await queries.save_refunds(tx.connection, events)


async def on_credits(event: CreditsChanged, tx: Tx) -> None:
    """Keep what opens and clicks of messages earned."""
    await queries.save_earnings(tx.connection, event)
