"""What nurture knows of people, in its projection."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from services.nurture.enrolments.domain import Fact
from services.nurture.people.domain import Addresses, Person, Profile, Suppression
from shared.consents import MARKETING, Consent, latest_consents
from shared.db import Connection
from shared.events import ConsentChanged, LeadCaptured, SegmentEntered, SegmentLeft, StageChanged
from shared.identity import Fact as Whose
from shared.identity import Member, members_of_many, persons_behind
from shared.ids import EventId, LeadId, derived_id
from shared.personal import PersonKeys
from shared.profiles import combine_profiles

BOUNCED = "bounced"
PERSONAL = ("email", "phone", "first_name", "last_name", "title", "attributes")
PUT_PROFILES = """
INSERT INTO profiles AS known (lead_id, revision, captured_at, fields, personal)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[], $5::text[])
ON CONFLICT (lead_id) DO UPDATE
SET revision = excluded.revision, captured_at = excluded.captured_at, fields = excluded.fields,
    personal = excluded.personal
WHERE known.revision < excluded.revision
"""
PUT_CONSENTS = """
INSERT INTO consents AS known (lead_id, channel, state, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
ON CONFLICT (lead_id, channel) DO UPDATE SET state = excluded.state, at = excluded.at
WHERE (known.at, known.state = 'denied') < (excluded.at, excluded.state = 'denied')
"""
PUT_PURPOSES = """
INSERT INTO purpose_consents AS known (lead_id, channel, purpose, state, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
ON CONFLICT (lead_id, channel, purpose) DO UPDATE SET state = excluded.state, at = excluded.at
WHERE (known.at, known.state = 'denied') < (excluded.at, excluded.state = 'denied')
"""
PUT_STAGES = """
INSERT INTO stages AS known (lead_id, revision, stage) SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])
ON CONFLICT (lead_id) DO UPDATE SET revision = excluded.revision, stage = excluded.stage
WHERE known.revision < excluded.revision
"""
PUT_MILESTONE = """
INSERT INTO milestones AS known (kind, fact_id, lead_id, position, event_id, occurred_at, fields)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (kind, fact_id) DO UPDATE
SET lead_id = excluded.lead_id, position = excluded.position, event_id = excluded.event_id,
    occurred_at = excluded.occurred_at, fields = excluded.fields
WHERE known.position < excluded.position
"""
PUT_SEGMENTS = """
INSERT INTO segments AS known (lead_id, segment_id, revision, member)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[])
ON CONFLICT (lead_id, segment_id) DO UPDATE SET revision = excluded.revision, member = excluded.member
WHERE known.revision < excluded.revision
"""
SEGMENTS = "SELECT lead_id, segment_id FROM segments WHERE lead_id = ANY($1) AND member"
ERASED = "SELECT lead_id FROM identity_erased WHERE lead_id = ANY($1)"
FORGET = """
WITH gone AS (DELETE FROM profiles WHERE lead_id = ANY($1)),
     purposes AS (DELETE FROM purpose_consents WHERE lead_id = ANY($1))
DELETE FROM consents WHERE lead_id = ANY($1)
"""
PROFILES = "SELECT lead_id, captured_at, fields, personal FROM profiles WHERE lead_id = ANY($1)"
CONSENTS = """
SELECT lead_id, channel, 'marketing' AS purpose, state, at FROM consents WHERE lead_id = ANY($1)
UNION ALL
SELECT lead_id, channel, purpose, state, at FROM purpose_consents WHERE lead_id = ANY($1)
"""
STANDING = """
SELECT given.lead_id, stages.stage, coalesce(stages.revision, -1) AS revision,
       lead_scores.scores, coalesce(lead_scores.revision, -1) AS scores_revision,
       EXISTS (SELECT FROM identity_erased AS gone WHERE gone.lead_id = given.lead_id) AS erased,
       EXISTS (SELECT FROM parked_events AS parked WHERE parked.key = given.lead_id) AS parked,
       chosen.paused_until, chosen.language, chosen.changed_at AS chosen_at
FROM unnest($1::text[]) AS given (lead_id) LEFT JOIN stages ON stages.lead_id = given.lead_id
LEFT JOIN lead_scores ON lead_scores.lead_id = given.lead_id
LEFT JOIN contact_preferences AS chosen ON chosen.lead_id = given.lead_id
"""
SUPPRESSIONS = """
SELECT lead_id, address_hash, channel, reason, since FROM suppressions
WHERE lead_id = ANY($1) OR address_hash = ANY($2) ORDER BY since, reason
"""
RELATED = """
SELECT given.lead_id FROM unnest($1::text[]) AS given (lead_id)
WHERE EXISTS (SELECT FROM identity_aliases AS alias WHERE alias.into_id = given.lead_id AND alias.active)
   OR EXISTS (SELECT FROM identity_links AS link WHERE link.lead_id = given.lead_id)
   OR EXISTS (SELECT FROM identity_links AS link WHERE link.anonymous_lead_id = given.lead_id)
"""
MILESTONES = """
SELECT kind, lead_id, event_id, occurred_at, fields FROM milestones
WHERE lead_id = ANY($1) AND occurred_at >= $2 ORDER BY occurred_at, event_id
"""
PUT_SUPPRESSION = """
INSERT INTO suppressions AS known (suppression_id, lead_id, address_hash, channel, reason, since, origin)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (suppression_id) DO UPDATE SET since = greatest(known.since, excluded.since)
"""
LOCK = """
SELECT pg_advisory_xact_lock(1_853_190, bucket) FROM (
    SELECT DISTINCT abs(hashtext(id) % 512) AS bucket FROM unnest($1::text[]) AS id ORDER BY bucket
) AS buckets
"""


async def save_profiles(connection: Connection, snapshots: Sequence[tuple[LeadCaptured, dict[str, Any]]]) -> None:
    """Keep each id's newest snapshot; nothing of an erased person."""
    gone = await erased(connection, {event.lead_id for event, _ in snapshots})
    newest: dict[LeadId, tuple[LeadCaptured, dict[str, Any]]] = {}
    for event, fields in snapshots:
        known = newest.get(event.lead_id)
        if event.lead_id not in gone and (known is None or known[0].revision < event.revision):
            newest[event.lead_id] = (event, fields)
    rows = [newest[lead_id] for lead_id in sorted(newest)]
    if rows:
        await connection.execute(
            PUT_PROFILES,
            [event.lead_id for event, _ in rows],
            [event.revision for event, _ in rows],
            [event.captured_at for event, _ in rows],
            [fields for _, fields in rows],
            [event.personal for event, _ in rows],
        )


async def save_consents(connection: Connection, events: Iterable[ConsentChanged]) -> None:
    """Keep each id's latest word on each channel for each purpose."""
    latest: dict[tuple[str, str, str], ConsentChanged] = {}
    for event in events:
        known = latest.get((event.lead_id, event.channel, event.purpose))
        if known is None or _rank(known) < _rank(event):
            latest[event.lead_id, event.channel, event.purpose] = event
    words = [latest[key] for key in sorted(latest)]
    if general := [word for word in words if word.purpose == MARKETING]:
        await connection.execute(PUT_CONSENTS, *_columns(general, "lead_id", "channel", "state", "occurred_at"))
    if others := [word for word in words if word.purpose != MARKETING]:
        columns = _columns(others, "lead_id", "channel", "purpose", "state", "occurred_at")
        await connection.execute(PUT_PURPOSES, *columns)


def _columns(words: Sequence[ConsentChanged], *names: str) -> list[list[Any]]:
    return [[getattr(word, name) for word in words] for name in names]


def _rank(event: ConsentChanged) -> tuple[datetime, bool]:
    return event.occurred_at, event.state == "denied"


async def save_stages(connection: Connection, events: Iterable[StageChanged]) -> None:
    """Keep each id's newest stage."""
    newest: dict[LeadId, StageChanged] = {}
    for event in events:
        known = newest.get(event.lead_id)
        if known is None or known.revision < event.revision:
            newest[event.lead_id] = event
    rows = [newest[lead_id] for lead_id in sorted(newest)]
    await connection.execute(
        PUT_STAGES, [row.lead_id for row in rows], [row.revision for row in rows], [row.stage for row in rows]
    )


async def save_segments(connection: Connection, events: Iterable[SegmentEntered | SegmentLeft]) -> None:
    """Keep the newest word about each id and segment."""
    newest = {(event.lead_id, event.segment_id): event for event in sorted(events, key=lambda event: event.revision)}
    rows = [newest[key] for key in sorted(newest)]
    await connection.execute(
        PUT_SEGMENTS,
        [row.lead_id for row in rows],
        [row.segment_id for row in rows],
        [row.revision for row in rows],
        [isinstance(row, SegmentEntered) for row in rows],
    )


async def save_milestone(connection: Connection, kind: str, fact_id: str, position: int, fact: Fact) -> None:
    """Keep a fact that may end a run; of corrections the one received last, also where that takes it back."""
    await connection.execute(
        PUT_MILESTONE,
        kind,
        fact_id,
        fact.lead_id,
        position,
        fact.event_id,
        fact.occurred_at,
        dict(fact.fields),
    )


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Delete what is personal."""
    await connection.execute(FORGET, lead_ids)


async def erased(connection: Connection, lead_ids: Iterable[LeadId]) -> set[LeadId]:
    """Which of these ids were erased."""
    return {LeadId(row["lead_id"]) for row in await connection.fetch(ERASED, sorted(lead_ids))}


async def load_persons(
    connection: Connection,
    addresses: Addresses,
    keys: PersonKeys,
    person_ids: Iterable[LeadId],
    families: Mapping[LeadId, Sequence[Member]] | None = None,
) -> dict[LeadId, Person]:
    """All that is known of persons, from all their ids: a handful of statements, however many persons.

    `families` where they are known already. Raises KeysAwaited while a key is still on its way.
    """
    families = families or await load_families(connection, person_ids)
    owner = {(member.lead_id, person_id) for person_id, family in families.items() for member in family}
    ids = sorted({lead_id for lead_id, _ in owner})
    profiles = await profiles_of(connection, keys, ids)
    consents: dict[str, list[Consent]] = {}
    for row in await connection.fetch(CONSENTS, ids):
        consents.setdefault(row["lead_id"], []).append(Consent(row["channel"], row["state"], row["at"], row["purpose"]))
    standing = {row["lead_id"]: row for row in await connection.fetch(STANDING, ids)}
    segments: dict[str, list[str]] = {}
    for row in await connection.fetch(SEGMENTS, ids):
        segments.setdefault(row["lead_id"], []).append(row["segment_id"])
    hashes = {
        lead_id: frozenset(addresses.hashes_of(profile.fields.get("email"), profile.fields.get("phone")))
        for lead_id, profile in profiles.items()
    }
    suppressed = await connection.fetch(SUPPRESSIONS, ids, sorted(frozenset().union(*hashes.values())))
    persons = {}
    for person_id, family in families.items():
        own = {member.lead_id for member in family}
        theirs = frozenset[str]().union(*(hashes[lead_id] for lead_id in own if lead_id in hashes))
        chosen = [standing[lead_id] for lead_id in own if standing[lead_id]["chosen_at"]]
        ranked = sorted(own, key=lambda lead_id: (lead_id == person_id, standing[lead_id]["revision"]), reverse=True)
        persons[person_id] = Person(
            person_id=person_id,
            ids=tuple(sorted(own)),
            fields=_in_language(
                combine_profiles(person_id, [profiles[lead_id] for lead_id in own if lead_id in profiles]), chosen
            ),
            paused_until=max((row["paused_until"] for row in chosen if row["paused_until"]), default=None),
            consents=latest_consents(
                consent
                for lead_id in own
                for consent in consents.get(lead_id, ())
                if covers(family, lead_id, consent.at)
            ),
            scores=max(
                (standing[lead_id] for lead_id in own),
                key=lambda row: (row["lead_id"] == person_id and row["scores"] is not None, row["scores_revision"]),
            )["scores"]
            or {},
            stage=next((stage for lead_id in ranked if (stage := standing[lead_id]["stage"])), None),
            suppressions=tuple(
                dict.fromkeys(
                    Suppression(row["reason"], row["since"], row["channel"])
                    for row in suppressed
                    if row["address_hash"] in theirs or (row["lead_id"] in own and not _of_address_alone(row))
                )
            ),
            erased=any(standing[lead_id]["erased"] for lead_id in own),
            parked=any(standing[lead_id]["parked"] for lead_id in own),
            segments=frozenset(segment_id for lead_id in own for segment_id in segments.get(lead_id, ())),
        )
    return persons


async def load_person(connection: Connection, addresses: Addresses, keys: PersonKeys, person_id: LeadId) -> Person:
    """All that is known of one person."""
    return (await load_persons(connection, addresses, keys, [person_id]))[person_id]


def _of_address_alone(row: asyncpg.Record) -> bool:
    """Whether an entry ends with the address: a mailbox that is gone says nothing about the next one."""
    return row["reason"] == BOUNCED and row["address_hash"] is not None


def _in_language(fields: dict[str, Any], chosen: Sequence[asyncpg.Record]) -> dict[str, Any]:
    """A profile with the language that the person chose last, where they did."""
    spoken = [row for row in chosen if row["language"]]
    if not spoken:
        return fields
    language = max(spoken, key=lambda row: row["chosen_at"])["language"]
    return {**fields, "attributes": {**fields.get("attributes", {}), "language": language}}


async def profiles_of(connection: Connection, keys: PersonKeys, ids: Sequence[LeadId]) -> dict[str, Profile]:
    """What each id was told to be last, where anything was."""
    rows = await connection.fetch(PROFILES, ids)
    texts = await keys.open_many(connection, [(LeadId(row["lead_id"]), row["personal"]) for row in rows])
    return {
        row["lead_id"]: Profile(LeadId(row["lead_id"]), row["captured_at"], {**row["fields"], **_told(text)})
        for row, text in zip(rows, texts, strict=True)
    }


def _told(text: bytes | None) -> dict[str, Any]:
    """What is personal of a profile, as expressions name it."""
    told = {} if text is None else orjson.loads(text)
    return {name: told[name] for name in PERSONAL if told.get(name)}


async def load_families(connection: Connection, person_ids: Iterable[LeadId]) -> dict[LeadId, list[Member]]:
    """Every id whose facts belong to each person, the person's own among them."""
    wanted = sorted(set(person_ids))
    related = {row["lead_id"] for row in await connection.fetch(RELATED, wanted)}
    found = await members_of_many(connection, sorted(related)) if related else {}
    families: dict[LeadId, list[Member]] = {}
    for person_id in wanted:
        family = found.get(person_id, [])
        families[person_id] = family if any(m.lead_id == person_id for m in family) else [*family, Member(person_id)]
    return families


async def milestones_since(connection: Connection, family: Sequence[Member], since: datetime) -> list[Fact]:
    """Conversions and accepted assignments of a person from a moment on."""
    someone = LeadId("")
    return (await milestones_of(connection, {someone: family}, since))[someone]


async def milestones_of(
    connection: Connection, families: Mapping[LeadId, Sequence[Member]], since: datetime
) -> dict[LeadId, list[Fact]]:
    """The same of many persons, by their ids."""
    owners: dict[str, list[LeadId]] = {}
    for person_id, family in families.items():
        for lead_id in {member.lead_id for member in family}:
            owners.setdefault(lead_id, []).append(person_id)
    found: dict[LeadId, list[Fact]] = {person_id: [] for person_id in families}
    for row in await connection.fetch(MILESTONES, sorted(owners), since):
        fact = Fact(
            EventId(row["event_id"]), LeadId(row["lead_id"]), row["occurred_at"], row["occurred_at"], row["fields"]
        )
        for person_id in owners[row["lead_id"]]:
            if covers(families[person_id], row["lead_id"], row["occurred_at"]):
                found[person_id].append(fact)
    return found


def covers(family: Sequence[Member], lead_id: str, at: datetime) -> bool:
    """Whether a fact of this id, of then, is the person's."""
    return any(member.lead_id == lead_id and member.covers(at) for member in family)


async def lock_owners(connection: Connection, facts: Sequence[Whose]) -> list[LeadId]:
    """The persons behind facts' ids, each ours alone to decide about until the end of the transaction.

    Locks are shared by persons whose hash is the same, so that a large batch does not fill the lock table.
    """
    locked: set[LeadId] = set()
    while True:  # a merge may have come before the lock
        owners = await persons_behind(connection, facts) if facts else []
        missing = sorted(set(owners) - locked)
        if not missing:
            return owners
        await connection.execute(LOCK, missing)
        locked |= set(missing)


async def lock_persons(connection: Connection, lead_ids: Iterable[LeadId]) -> dict[LeadId, LeadId]:
    """The persons behind ids as they stand now, locked."""
    ids = sorted(set(lead_ids))
    owners = await lock_owners(connection, [(lead_id, None) for lead_id in ids])
    return dict(zip(ids, owners, strict=True))


async def lock_person(connection: Connection, lead_id: LeadId) -> LeadId:
    """The person behind an id, ours alone to decide about until the end of the transaction."""
    return (await lock_persons(connection, [lead_id]))[lead_id]


async def suppress(  # noqa: PLR0913  # a row
    connection: Connection,
    lead_id: LeadId | None,
    address_hash: str | None,
    reason: str,
    since: datetime,
    origin: str,
    channel: str = "email",
) -> None:
    """Suppress a person, an address or both on a channel; the same again counts from the later time."""
    this = suppression_id(address_hash or lead_id or "", reason, channel)
    await connection.execute(PUT_SUPPRESSION, this, lead_id, address_hash, channel, reason, since, origin)


def suppression_id(about: str, reason: str, channel: str) -> str:
    """The id of an entry about the hash of an address, or a lead."""
    return derived_id("suppression", about, reason, *([] if channel == "email" else [channel]))


async def suppressions_of(connection: Connection, address_hashes: Sequence[str]) -> list[Suppression]:
    """What the list has of an address."""
    rows = await connection.fetch(SUPPRESSIONS, [], address_hashes)
    return [Suppression(row["reason"], row["since"], row["channel"]) for row in rows]
