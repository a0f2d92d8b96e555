"""The statements that fold other services' facts about people, and read them back."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from services.routing.people.domain import (
    DEAL,
    Person,
    Profile,
    Standing,
    current_standing,
)
from shared.consents import Consent, latest_consents, marketing_words
from shared.db import Connection
from shared.events import ConsentChanged, LeadCaptured, StageChanged
from shared.ids import LeadId
from shared.profiles import combine_profiles

FOLD_PROFILES = """
INSERT INTO profiles AS known (lead_id, revision, captured_at, fields)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[])
ON CONFLICT (lead_id) DO UPDATE
SET revision = excluded.revision, captured_at = excluded.captured_at, fields = excluded.fields
WHERE known.revision < excluded.revision
"""
FOLD_CONSENTS = """
INSERT INTO consents AS known (lead_id, channel, state, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
ON CONFLICT (lead_id, channel) DO UPDATE SET state = excluded.state, at = excluded.at
WHERE (known.at, known.state = 'denied') < (excluded.at, excluded.state = 'denied')
"""
FOLD_STANDINGS = """
INSERT INTO standings AS known (lead_id, revision, stage, engagement, fit, total, grade)
SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::double precision[], $5::integer[], $6::double precision[], $7::text[]
)
ON CONFLICT (lead_id) DO UPDATE
SET revision = excluded.revision, stage = excluded.stage, engagement = excluded.engagement, fit = excluded.fit,
    total = excluded.total, grade = excluded.grade
WHERE known.revision < excluded.revision
"""
STRIP_PROFILE = "UPDATE profiles SET fields = '{}' WHERE lead_id = $1"
FORGET_CONSENTS = "DELETE FROM consents WHERE lead_id = $1"
# All ids of each person: those merged into it, and the browsers linked to any of them.
IDS = """
WITH RECURSIVE below AS (
    SELECT id AS person_id, id FROM unnest($1::text[]) AS id
    UNION
    SELECT below.person_id, alias.lead_id
    FROM below JOIN identity_aliases AS alias ON alias.into_id = below.id AND alias.active
)
SELECT person_id, id FROM below
UNION
SELECT below.person_id, link.anonymous_lead_id FROM below JOIN identity_links AS link ON link.lead_id = below.id
"""
PROFILES = "SELECT lead_id, revision, captured_at, fields FROM profiles WHERE lead_id = ANY($1)"
CONSENTS = "SELECT lead_id, channel, state, at FROM consents WHERE lead_id = ANY($1)"
STANDINGS = """
SELECT lead_id, revision, stage, engagement, fit, total, grade FROM standings WHERE lead_id = ANY($1)
"""
ERASED = "SELECT lead_id FROM identity_erased WHERE lead_id = ANY($1)"
OPEN_DEALS = """
SELECT lead_id, changed_at, deal_id, external_id, name, stage, probability, value_minor, currency, recurring_minor
FROM deals WHERE lead_id = ANY($1) AND status = 'open' ORDER BY changed_at DESC, deal_id
"""
IS_KNOWN = """
SELECT EXISTS (SELECT 1 FROM profiles WHERE lead_id = ANY($1))
    OR EXISTS (SELECT 1 FROM standings WHERE lead_id = ANY($1))
    OR EXISTS (SELECT 1 FROM assignments WHERE lead_id = ANY($1))
    OR EXISTS (SELECT 1 FROM identity_aliases WHERE lead_id = ANY($1) OR into_id = ANY($1))
    OR EXISTS (SELECT 1 FROM identity_links WHERE anonymous_lead_id = ANY($1) OR lead_id = ANY($1))
"""


async def fold_profiles(connection: Connection, profiles: Sequence[Profile]) -> None:
    """Keep each id's newest snapshot."""
    ordered = sorted(profiles, key=lambda profile: profile.lead_id)
    await connection.execute(
        FOLD_PROFILES,
        [profile.lead_id for profile in ordered],
        [profile.revision for profile in ordered],
        [profile.captured_at for profile in ordered],
        [dict(profile.fields) for profile in ordered],
    )


async def fold_consents(connection: Connection, events: Sequence[ConsentChanged]) -> None:
    """Keep each id's last word on each channel; the events are one per id and channel."""
    ordered = sorted(events, key=lambda event: (event.lead_id, event.channel))
    await connection.execute(
        FOLD_CONSENTS,
        [event.lead_id for event in ordered],
        [event.channel for event in ordered],
        [event.state for event in ordered],
        [event.occurred_at for event in ordered],
    )


async def fold_standings(connection: Connection, events: Sequence[StageChanged]) -> None:
    """Keep each id's newest stage; the events are one per id."""
    ordered = sorted(events, key=lambda event: event.lead_id)
    await connection.execute(
        FOLD_STANDINGS,
        [event.lead_id for event in ordered],
        [event.revision for event in ordered],
        [event.stage for event in ordered],
        [event.engagement for event in ordered],
        [event.fit for event in ordered],
        [event.total for event in ordered],
        [event.grade for event in ordered],
    )


async def strip_profile(connection: Connection, lead_id: LeadId) -> None:
    """Forget what is personal of an erased person."""
    await connection.execute(STRIP_PROFILE, lead_id)
    await connection.execute(FORGET_CONSENTS, lead_id)


async def people_of(connection: Connection, person_ids: Sequence[LeadId]) -> dict[LeadId, Person]:
    """Persons put together from what is known of all their ids: six statements, however many persons."""
    ids: dict[LeadId, set[LeadId]] = {person_id: {person_id} for person_id in person_ids}
    for row in await connection.fetch(IDS, sorted(ids)):
        ids[row["person_id"]].add(row["id"])
    every_id = sorted(set().union(*ids.values())) if ids else []
    profiles = _by_lead(await connection.fetch(PROFILES, every_id))
    consents = _by_lead(await connection.fetch(CONSENTS, every_id))
    standings = _by_lead(await connection.fetch(STANDINGS, every_id))
    deals = _by_lead(await connection.fetch(OPEN_DEALS, every_id))
    erased = {row["lead_id"] for row in await connection.fetch(ERASED, every_id)}
    return {
        person_id: _person(
            person_id,
            sorted(theirs),
            [Profile(**row) for one in theirs for row in profiles.get(one, ())],
            [Consent(row["channel"], row["state"], row["at"]) for one in theirs for row in consents.get(one, ())],
            [Standing(**row) for one in theirs for row in standings.get(one, ())],
            max((row for one in theirs for row in deals.get(one, ())), key=lambda row: row["changed_at"], default=None),
            erased=not erased.isdisjoint(theirs),
        )
        for person_id, theirs in ids.items()
    }


def _by_lead(rows: Sequence[asyncpg.Record]) -> dict[LeadId, list[asyncpg.Record]]:
    grouped: dict[LeadId, list[asyncpg.Record]] = {}
    for row in rows:
        grouped.setdefault(row["lead_id"], []).append(row)
    return grouped


def _person(  # noqa: PLR0913  # what a person is put together from
    person_id: LeadId,
    ids: Sequence[LeadId],
    profiles: Sequence[Profile],
    consents: Sequence[Consent],
    standings: Sequence[Standing],
    deal: asyncpg.Record | None,
    *,
    erased: bool,
) -> Person:
    lead = combine_profiles(person_id, profiles)
    consent = marketing_words(latest_consents(consents))
    return Person(
        person_id=person_id,
        ids=tuple(ids),
        lead=lead | ({"consent": consent} if consent else {}),
        revision=max((profile.revision for profile in profiles if profile.lead_id == person_id), default=0),
        standing=current_standing(person_id, standings),
        deal=None if deal is None else {name: deal[name] for name in DEAL if deal[name] is not None},
        erased=erased,
    )


async def is_known(connection: Connection, ids: Sequence[LeadId]) -> bool:
    """Whether anything was ever told about these ids."""
    known: bool = await connection.fetchval(IS_KNOWN, ids)
    return known


def profile_fields(event: LeadCaptured, personal: dict[str, Any] | None) -> dict[str, Any]:
    """A snapshot's fields as rules name them, without what is absent."""
    fields = {
        "company": event.company,
        "country": event.country,
        "region": event.region,
        "industry": event.industry,
        "employees": event.employees,
        "annual_revenue": event.annual_revenue,
        "use_case": event.use_case,
        "free_mail": event.free_mail,
        **(personal or {}),
    }
    return {name: value for name, value in fields.items() if value not in (None, {})}
