"""The last act before a message leaves: its row in the ledger, claimed. From the commit on it is never claimed again
unless it certainly did not leave.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.nurture.channels.channel import Draft
from services.nurture.experiments.queries import note_variants
from services.nurture.parts import Parts
from services.nurture.sending import queries
from services.nurture.sending.queries import Entry
from services.nurture.sending.sealing import Said, sealed
from shared.db import Tx
from shared.events import ConsentChannel, MessageClaimed
from shared.ids import EventId, LeadId, MessageId


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message in the ledger, claimed by us, and not yet handed over; `lapses_at`, by this process's own clock, is
    when it is too late for that.
    """

    message_id: MessageId
    lead_id: LeadId
    person_id: LeadId
    channel: ConsentChannel
    claimed_at: datetime
    attempt: int
    draft: Draft
    lapses_at: float


async def claim_all(tx: Tx, parts: Parts, claim: str, wanted: Sequence[tuple[Entry, Draft]]) -> list[Claimed]:
    """Enter messages in the ledger, claimed, each to another person. Those that are left out the person had already."""
    if not wanted:
        return []
    settings = parts.settings
    lapses_at = time.monotonic() + (settings.claim_for - settings.smtp_timeout).total_seconds()
    await queries.plan_messages(tx.connection, [entry for entry, _ in wanted])
    said = await sealed(
        tx.connection,
        parts.runtime.keys,
        {entry.run.lead_id: Said(draft.subject or "", draft.links) for entry, draft in wanted},
    )
    claimed = await queries.claim_messages(
        tx.connection,
        claim,
        settings.claim_for,
        {entry.message_id: (entry.person_id, draft.provider, said[entry.run.lead_id]) for entry, draft in wanted},
    )
    facts = [claim_fact(entry, *claimed[entry.message_id]) for entry, _ in wanted if entry.message_id in claimed]
    await note_variants(tx.connection, facts)
    tx.emit(*facts)
    return [
        Claimed(
            entry.message_id,
            entry.run.lead_id,
            entry.person_id,
            entry.channel,
            *claimed[entry.message_id],
            draft,
            lapses_at,
        )
        for entry, draft in wanted
        if entry.message_id in claimed
    ]


def claim_fact(entry: Entry, at: datetime, attempt: int) -> MessageClaimed:
    """The fact that a message is about to leave."""
    return MessageClaimed(
        event_id=EventId(f"message-claimed:{entry.message_id}:{attempt}"),
        lead_id=entry.run.lead_id,
        occurred_at=at,
        received_at=at,
        message_id=entry.message_id,
        enrolment_id=entry.run.enrolment_id,
        sequence_id=entry.run.sequence_id,
        step_id=entry.step_id,
        visit=entry.visit,
        channel=entry.channel,
        person_id=entry.person_id,
        run=entry.run.run,
        experiment_id=entry.named[0] if entry.named is not None else None,
        variant=entry.named[1] if entry.named is not None else None,
    )
