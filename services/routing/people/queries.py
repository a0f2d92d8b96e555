"""The statements that fold other services' facts about people, and read them back."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import asyncpg
import orjson

from services.routing.people.domain import (
    DEAL,
    Company,
    Person,
    Profile,
    Standing,
    chain,
    current_standing,
)
from shared.consents import Consent, latest_consents, marketing_words
from shared.db import Connection
from shared.events import ConsentChanged, LeadCaptured, StageChanged
from shared.ids import AccountId, LeadId
from shared.personal import PersonKeys
from shared.profiles import combine_profiles
from shared.rules import present

FOLD_PROFILES = """
INSERT INTO profiles AS known (lead_id, revision, captured_at, fields, personal)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[], $5::text[])
ON CONFLICT (lead_id) DO UPDATE
SET revision = excluded.revision, captured_at = excluded.captured_at, fields = excluded.fields,
    personal = excluded.personal
WHERE known.revision < excluded.revision
"""
FOLD_CONSENTS = """
INSERT INTO consents AS known (lead_id, channel, state, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
ON CONFLICT (lead_id, channel) DO UPDATE SET state = excluded.state, at = excluded.at
WHERE (known.at, known.state = 'denied') < (excluded.at, excluded.state = 'denied')
"""
FOLD_STANDINGS = """
INSERT INTO standings AS known (lead_id, revision, stage, engagement, fit, total, grade, entered_at)
SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::double precision[], $5::integer[], $6::double precision[], $7::text[],
    $8::timestamptz[]
)
ON CONFLICT (lead_id) DO UPDATE
SET revision = excluded.revision, stage = excluded.stage, engagement = excluded.engagement, fit = excluded.fit,
    total = excluded.total, grade = excluded.grade, entered_at = excluded.entered_at
WHERE known.revision < excluded.revision
"""
FOLD_SEGMENTS = """
INSERT INTO segments AS known (lead_id, segment_id, revision, member)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[])
ON CONFLICT (lead_id, segment_id) DO UPDATE SET revision = excluded.revision, member = excluded.member
WHERE known.revision < excluded.revision
"""
SEGMENTS = "SELECT lead_id, segment_id FROM segments WHERE lead_id = ANY($1) AND member"
FOLD_ACCOUNTS = """
INSERT INTO accounts AS known (
    account_id, revision, parent_id, merged_into, name, domain, owner_id, industry, employees, annual_revenue, country
) SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
    $10::bigint[], $11::text[]
)
ON CONFLICT (account_id) DO UPDATE
SET revision = excluded.revision, parent_id = excluded.parent_id, merged_into = excluded.merged_into,
    name = excluded.name, domain = excluded.domain, owner_id = excluded.owner_id, industry = excluded.industry,
    employees = excluded.employees, annual_revenue = excluded.annual_revenue, country = excluded.country
WHERE known.revision < excluded.revision
"""
# Accounts with all above them. Facts of several come in any order, so that for a moment they may close a circle.
ACCOUNTS = """
WITH RECURSIVE up AS (
    SELECT account_id, 0 AS depth FROM unnest($1::text[]) AS account_id
    UNION
    SELECT coalesce(accounts.merged_into, accounts.parent_id), depth + 1
    FROM up JOIN accounts USING (account_id) WHERE depth < 64
)
SELECT * FROM accounts WHERE account_id IN (SELECT account_id FROM up)
"""
STRIP_PROFILE = "UPDATE profiles SET fields = '{}', personal = NULL WHERE lead_id = $1"
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
PROFILES = "SELECT lead_id, revision, captured_at, fields, personal FROM profiles WHERE lead_id = ANY($1)"
CONSENTS = "SELECT lead_id, channel, state, at FROM consents WHERE lead_id = ANY($1)"
STANDINGS = """
SELECT lead_id, revision, stage, engagement, fit, total, grade, entered_at, coalesce(scores, '{}') AS scores
FROM standings LEFT JOIN lead_scores USING (lead_id, revision) WHERE lead_id = ANY($1)
"""
ERASED = "SELECT lead_id FROM identity_erased WHERE lead_id = ANY($1)"
OPEN_DEALS = """
SELECT lead_id, changed_at, deal_id, external_id, name, sealed, stage, probability, value_minor, currency,
    recurring_minor, rep_id
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
        [profile.personal for profile in ordered],
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
        [event.occurred_at for event in ordered],
    )


async def fold_segments(connection: Connection, words: Sequence[tuple[LeadId, str, int, bool]]) -> None:
    """Keep the newest word of each id and segment: (id, segment, revision, whether it is in)."""
    newest = {(lead_id, segment_id): (revision, member) for lead_id, segment_id, revision, member in sorted(words)}
    keys = sorted(newest)
    await connection.execute(
        FOLD_SEGMENTS,
        [lead_id for lead_id, _ in keys],
        [segment_id for _, segment_id in keys],
        [newest[key][0] for key in keys],
        [newest[key][1] for key in keys],
    )


async def fold_accounts(connection: Connection, companies: Sequence[Company]) -> None:
    """Keep each account's newest snapshot; they are one per account."""
    ordered = sorted(companies, key=lambda company: company.account_id)
    columns = zip(*(astuple(company) for company in ordered), strict=True)
    await connection.execute(FOLD_ACCOUNTS, *(list(column) for column in columns))


async def strip_profile(connection: Connection, lead_id: LeadId) -> None:
    """Forget what is personal of an erased person."""
    await connection.execute(STRIP_PROFILE, lead_id)
    await connection.execute(FORGET_CONSENTS, lead_id)


async def people_of(
    connection: Connection, person_ids: Sequence[LeadId], keys: PersonKeys | None
) -> dict[LeadId, Person]:
    """Persons put together from what is known of all their ids: nine statements, however many persons."""
    ids: dict[LeadId, set[LeadId]] = {person_id: {person_id} for person_id in person_ids}
    for row in await connection.fetch(IDS, sorted(ids)):
        ids[row["person_id"]].add(row["id"])
    every_id = sorted(set().union(*ids.values())) if ids else []
    profiles = _by_lead(await connection.fetch(PROFILES, every_id))
    consents = _by_lead(await connection.fetch(CONSENTS, every_id))
    standings = _by_lead(await connection.fetch(STANDINGS, every_id))
    segments = _by_lead(await connection.fetch(SEGMENTS, every_id))
    deals = _by_lead(await connection.fetch(OPEN_DEALS, every_id))
    erased = {row["lead_id"] for row in await connection.fetch(ERASED, every_id)}
    account_ids = {row["fields"].get("account_id") for rows in profiles.values() for row in rows} - {None}
    rows = await connection.fetch(ACCOUNTS, sorted(account_ids)) if account_ids else []
    companies = {AccountId(row["account_id"]): Company(**row) for row in rows}
    opened = await _opened(connection, keys, profiles)
    newest_deals = {
        person_id: max(
            (row for one in theirs for row in deals.get(one, ())), key=lambda row: row["changed_at"], default=None
        )
        for person_id, theirs in ids.items()
    }
    shown = await _deals_shown(connection, keys, newest_deals)
    return {
        person_id: _person(
            person_id,
            sorted(theirs),
            companies,
            [opened[one] for one in theirs if one in opened],
            [Consent(row["channel"], row["state"], row["at"]) for one in theirs for row in consents.get(one, ())],
            [Standing(**row) for one in theirs for row in standings.get(one, ())],
            shown.get(person_id),
            frozenset(row["segment_id"] for one in theirs for row in segments.get(one, ())),
            erased=not erased.isdisjoint(theirs),
        )
        for person_id, theirs in ids.items()
    }


async def _opened(
    connection: Connection, keys: PersonKeys | None, profiles: Mapping[LeadId, Sequence[asyncpg.Record]]
) -> dict[LeadId, Profile]:
    known = {lead_id: Profile(**row) for lead_id, (row,) in profiles.items()}
    if keys is None:
        return known
    texts = await keys.open_many(connection, [(one.lead_id, one.personal) for one in known.values()])
    return {
        lead_id: replace(one, fields={**one.fields, **_told(text)}) if text is not None else one
        for (lead_id, one), text in zip(known.items(), texts, strict=True)
    }


def _told(text: bytes) -> dict[str, Any]:
    """What is personal of a profile as rules name it, without what is absent."""
    return {name: value for name, value in orjson.loads(text).items() if value not in (None, {})}


async def _deals_shown(
    connection: Connection, keys: PersonKeys | None, newest: Mapping[LeadId, asyncpg.Record | None]
) -> dict[LeadId, dict[str, Any]]:
    """The deals as rules see them, by whose they are."""
    found = {person_id: dict(row) for person_id, row in newest.items() if row is not None}
    if keys is not None:
        texts = await keys.open_many(connection, [(LeadId(row["lead_id"]), row["sealed"]) for row in found.values()])
        for row, text in zip(found.values(), texts, strict=True):
            row.update(orjson.loads(text) if text is not None else {})
    return {
        person_id: {name: row[name] for name in DEAL if row[name] not in (None, "")} for person_id, row in found.items()
    }


def _by_lead(rows: Sequence[asyncpg.Record]) -> dict[LeadId, list[asyncpg.Record]]:
    grouped: dict[LeadId, list[asyncpg.Record]] = {}
    for row in rows:
        grouped.setdefault(row["lead_id"], []).append(row)
    return grouped


def _person(  # noqa: PLR0913  # what a person is put together from
    person_id: LeadId,
    ids: Sequence[LeadId],
    companies: Mapping[AccountId, Company],
    profiles: Sequence[Profile],
    consents: Sequence[Consent],
    standings: Sequence[Standing],
    deal: Mapping[str, Any] | None,
    segments: frozenset[str],
    *,
    erased: bool,
) -> Person:
    lead = combine_profiles(person_id, profiles)
    consent = marketing_words(latest_consents(consents))
    filled = {name: lead.pop(name, None) for name in ("account_id", "account_matched_by", "account_reason")}
    own = next((profile for profile in profiles if profile.lead_id == person_id), None)
    known = own.fields if own is not None else filled  # who has no account is not given another's
    account_id = known.get("account_id")
    return Person(
        person_id=person_id,
        ids=tuple(ids),
        lead=lead | ({"consent": consent} if consent else {}),
        revision=max((profile.revision for profile in profiles if profile.lead_id == person_id), default=0),
        standing=current_standing(person_id, standings),
        deal=deal,
        erased=erased,
        account_id=account_id,
        account_match=present(matched_by=known.get("account_matched_by"), reason=known.get("account_reason")),
        segments=segments,
        companies=() if account_id is None else chain(companies, account_id),
    )


async def is_known(connection: Connection, ids: Sequence[LeadId]) -> bool:
    """Whether anything was ever told about these ids."""
    known: bool = await connection.fetchval(IS_KNOWN, ids)
    return known


def profile_fields(event: LeadCaptured) -> dict[str, Any]:
    """A snapshot's fields as rules name them, without what is absent or sealed."""
    fields = {
        "company": event.company,
        "country": event.country,
        "region": event.region,
        "industry": event.industry,
        "employees": event.employees,
        "annual_revenue": event.annual_revenue,
        "use_case": event.use_case,
        "free_mail": event.free_mail,
        "account_id": event.account_id,
        "account_matched_by": event.account_matched_by,
    }
    return {name: value for name, value in fields.items() if value is not None}
