"""Profiles and consents, by the id they were told with."""

from collections.abc import Sequence
from typing import Any

from services.scoring.people.domain import PROFILE_FIELDS
from shared.consents import says_about_marketing
from shared.db import Connection
from shared.events import ConsentChanged, LeadCaptured
from shared.ids import LeadId
from shared.rules import present

SAVE_PROFILES = """
INSERT INTO profiles AS known (lead_id, event_id, revision, occurred_at, captured_at, fields, personal)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[],
    $7::text[])
ON CONFLICT (lead_id) DO UPDATE SET event_id = excluded.event_id, revision = excluded.revision,
    occurred_at = excluded.occurred_at, captured_at = excluded.captured_at, fields = excluded.fields,
    personal = excluded.personal
WHERE known.revision < excluded.revision AND NOT known.erased
RETURNING lead_id
"""
KEEP_PROFILES = """
INSERT INTO past_profiles (lead_id, event_id, revision, occurred_at, captured_at, fields, personal)
SELECT told.* FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[],
    $7::text[]) AS told (lead_id, event_id, revision, occurred_at, captured_at, fields, personal)
WHERE NOT EXISTS (SELECT 1 FROM profiles WHERE profiles.lead_id = told.lead_id AND erased)
ON CONFLICT DO NOTHING
"""
FORGET_PAST = "DELETE FROM past_profiles WHERE lead_id = $1"
SAVE_CONSENTS = """
INSERT INTO consents AS known (lead_id, channel, state, occurred_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
ON CONFLICT (lead_id, channel) DO UPDATE SET state = excluded.state, occurred_at = excluded.occurred_at
WHERE (known.occurred_at, known.state = 'denied') < (excluded.occurred_at, excluded.state = 'denied')
RETURNING lead_id
"""
ERASE = """
INSERT INTO profiles (lead_id, event_id, revision, occurred_at, captured_at, fields, erased)
VALUES ($1, $2, 0, $3, $3, '{}', true)
ON CONFLICT (lead_id) DO UPDATE SET event_id = $2, revision = 0, occurred_at = $3, captured_at = $3, fields = '{}',
    personal = NULL, erased = true
"""
FORGET_CONSENTS = "DELETE FROM consents WHERE lead_id = $1"


async def save_profiles(connection: Connection, events: Sequence[LeadCaptured]) -> set[LeadId]:
    """Keep the highest revision of each profile, and the past ones apart; answers those that changed."""
    newest: dict[LeadId, LeadCaptured] = {}
    for event in events:
        if event.lead_id not in newest or newest[event.lead_id].revision < event.revision:
            newest[event.lead_id] = event
    rows = await connection.fetch(SAVE_PROFILES, *_columns([newest[lead_id] for lead_id in sorted(newest)]))
    every = {(event.lead_id, event.revision): event for event in events}
    await connection.execute(KEEP_PROFILES, *_columns([every[key] for key in sorted(every)]))
    return {LeadId(row["lead_id"]) for row in rows}


def _columns(events: Sequence[LeadCaptured]) -> tuple[list[Any], ...]:
    return (
        [event.lead_id for event in events],
        [event.event_id for event in events],
        [event.revision for event in events],
        [event.occurred_at for event in events],
        [event.captured_at for event in events],
        [present(**{name: getattr(event, name) for name in PROFILE_FIELDS}) for event in events],
        [event.personal for event in events],
    )


async def save_consents(connection: Connection, events: Sequence[ConsentChanged]) -> set[LeadId]:
    """Keep the latest word about marketing on each channel, of two at once the refusal; answers those that changed."""
    latest: dict[tuple[LeadId, str], ConsentChanged] = {}
    about_marketing = [event for event in events if says_about_marketing(event.purpose)]
    for event in sorted(about_marketing, key=lambda event: (event.occurred_at, event.state == "denied")):
        latest[event.lead_id, event.channel] = event
    ordered = [latest[key] for key in sorted(latest)]
    rows = await connection.fetch(
        SAVE_CONSENTS,
        [event.lead_id for event in ordered],
        [event.channel for event in ordered],
        [event.state for event in ordered],
        [event.occurred_at for event in ordered],
    )
    return {LeadId(row["lead_id"]) for row in rows}


async def erase_profile(connection: Connection, event_id: str, lead_id: LeadId, at: object) -> None:
    """Forget who an id is, and that it was forgotten remember."""
    await connection.execute(ERASE, lead_id, event_id, at)
    await connection.execute(FORGET_CONSENTS, lead_id)
    await connection.execute(FORGET_PAST, lead_id)
