"""Folds of what explains a person's past: every word about consent, every stage."""

from collections.abc import Sequence

from services.nurture.explaining import queries
from shared.db import Tx
from shared.events import ConsentChanged, LeadErased, StageChanged


async def on_consents(events: Sequence[ConsentChanged], tx: Tx) -> None:
    """Keep each word, with who told it."""
    await queries.save_consent_words(tx.connection, events)


async def on_stages(events: Sequence[StageChanged], tx: Tx) -> None:
    """Keep each stage."""
    await queries.save_stage_words(tx.connection, events)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Delete both; each id of the person has its own erasure."""
    await queries.forget(tx.connection, [event.lead_id])
