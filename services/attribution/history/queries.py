"""The statements about what was told, and when it was received."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from shared.db import Connection
from shared.events import LeadCaptured
from shared.ids import EventId, LeadId

IdentityKind = Literal["linked", "merged", "unmerged", "erased"]

PUT_IDENTITY = """
INSERT INTO identity_log (event_id, kind, lead_id, into_id, occurred_at, received_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT DO NOTHING
"""
PUT_PROFILES = """
INSERT INTO profile_log (lead_id, revision, captured_at, country, account_id, received_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::timestamptz[])
ON CONFLICT DO NOTHING
"""


class IdentityRow(NamedTuple):
    """An id turned out to be somebody's, or did not, or was erased (then `into_id` is None)."""

    event_id: EventId
    kind: IdentityKind
    lead_id: LeadId
    into_id: LeadId | None
    occurred_at: datetime
    received_at: datetime


async def put_identity(connection: Connection, rows: Sequence[IdentityRow]) -> None:
    """Write down identity facts; the same one again changes nothing."""
    await connection.execute(PUT_IDENTITY, *(list(column) for column in zip(*sorted(rows), strict=True)))


async def put_profiles(connection: Connection, events: Sequence[LeadCaptured]) -> None:
    """Write down revisions of profiles; the same one again changes nothing."""
    ordered = sorted(events, key=lambda event: (event.lead_id, event.revision))
    await connection.execute(
        PUT_PROFILES,
        [event.lead_id for event in ordered],
        [event.revision for event in ordered],
        [event.captured_at for event in ordered],
        [event.country for event in ordered],
        [event.account_id for event in ordered],
        [event.received_at for event in ordered],
    )
