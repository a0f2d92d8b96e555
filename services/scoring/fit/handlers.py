"""Fold what is known of who a person is."""

from collections.abc import Sequence

from services.scoring.engagement.queries import forget_personal
from services.scoring.fit import queries
from services.scoring.parts import Parts
from services.scoring.people.handlers import refit
from shared.db import Tx
from shared.events import ConsentChanged, LeadCaptured, LeadErased


async def on_profiles(events: Sequence[LeadCaptured], tx: Tx, *, parts: Parts) -> None:
    """Keep profiles and make fit anew where one changed."""
    if changed := await queries.save_profiles(tx.connection, events):
        await refit(tx, parts, changed)


async def on_consents(events: Sequence[ConsentChanged], tx: Tx, *, parts: Parts) -> None:
    """Keep consents; rules may look at them as at the profile."""
    if changed := await queries.save_consents(tx.connection, events):
        await refit(tx, parts, changed)


async def on_erased(event: LeadErased, tx: Tx, *, parts: Parts) -> None:
    """Forget who the person was; what it did still counts."""
    await queries.erase_profile(tx.connection, event.event_id, event.lead_id, event.occurred_at)
    await forget_personal(tx.connection, event.lead_id)
    await refit(tx, parts, [event.lead_id])
