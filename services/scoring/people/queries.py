"""The rows of persons, and the facts that they are made of."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import orjson

from services.scoring.engagement.contacts import NO_CONTACTS, Contacts
from services.scoring.engagement.decay import Decaying
from services.scoring.engagement.domain import Bucket, Day, DayKey, Engagement, Mark, Sums
from services.scoring.fit.domain import Fit
from services.scoring.people.domain import Assignment, Person
from services.scoring.stages.domain import Sales
from shared.db import Connection
from shared.ids import EventId, LeadId

COLUMNS = """
    person_id, rules_version, sums, newest, raised_at, raised_until, types, fit, grade, fit_rules, fit_event_id, fit_at,
    profile_revision, lead, assignment, deal, rejected_at, settled_at, connected_at, attempts
"""
LOAD = f"SELECT {COLUMNS} FROM scores WHERE person_id = ANY($1)"
LOCK = f"SELECT {COLUMNS} FROM scores WHERE person_id = ANY($1) ORDER BY person_id FOR UPDATE"
MAKE = """
INSERT INTO scores (person_id, rules_version, sums, types, fit, grade, fit_rules, lead)
SELECT id, $2, '{}', '[]', $3, $4, '[]', '{}' FROM unnest($1::text[]) AS id ORDER BY id
ON CONFLICT DO NOTHING RETURNING person_id
"""
FORGET = "DELETE FROM scores WHERE person_id = ANY($1)"
# What is written with every touch goes over as one JSON text: asyncpg looks at each element of an array.
SAVE_ENGAGEMENT = """
UPDATE scores SET sums = new.sums, newest = new.newest, raised_at = new.raised_at, raised_until = new.raised_until,
    types = new.types, connected_at = new.connected_at, attempts = new.attempts
FROM json_to_recordset($1) AS new (person_id text, sums jsonb, newest timestamptz, raised_at timestamptz,
    raised_until timestamptz, types jsonb, connected_at bigint, attempts bigint[])
WHERE scores.person_id = new.person_id
"""
SAVE_FIT = """
UPDATE scores SET rules_version = new.rules_version, fit = new.fit, grade = new.grade, fit_rules = new.fit_rules::jsonb,
    fit_event_id = new.fit_event_id, fit_at = new.fit_at, profile_revision = new.profile_revision,
    lead = new.lead
FROM unnest($1::text[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
    $8::bigint[], $9::jsonb[])
    AS new (person_id, rules_version, fit, grade, fit_rules, fit_event_id, fit_at, profile_revision, lead)
WHERE scores.person_id = new.person_id
"""
SAVE_SALES = """
UPDATE scores SET assignment = new.assignment, deal = new.deal, rejected_at = new.rejected_at,
    settled_at = new.settled_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
    AS new (person_id, assignment, deal, rejected_at, settled_at)
WHERE scores.person_id = new.person_id
"""
# Days go as text: asyncpg takes the first day of year 1, which stands for ever, for minus infinity.
LOAD_DAYS = """
SELECT person_id, rule_id, day, paid, more FROM limited_days
JOIN unnest($1::text[], $2::text[], $3::text[]::date[]) AS wanted (person_id, rule_id, day)
    USING (person_id, rule_id, day)
"""
SAVE_DAYS = """
INSERT INTO limited_days AS known (person_id, rule_id, day, paid, more)
SELECT person_id, rule_id, day, paid, more
FROM json_to_recordset($1) AS new (person_id text, rule_id text, day date, paid jsonb, more boolean)
ON CONFLICT (person_id, rule_id, day) DO UPDATE SET paid = excluded.paid, more = excluded.more
"""
FORGET_DAYS = "DELETE FROM limited_days WHERE person_id = ANY($1)"
# A person's ids: those that aliases lead to, and the anonymous ones that were linked to one of these last.
IDS = """
WITH RECURSIVE below AS (
    SELECT id AS person_id, id FROM unnest($1::text[]) AS id
    UNION
    SELECT below.person_id, alias.lead_id
    FROM below JOIN identity_aliases AS alias ON alias.into_id = below.id AND alias.active
), ids AS (
    SELECT person_id, id FROM below
    UNION
    SELECT below.person_id, link.anonymous_lead_id
    FROM below JOIN identity_links AS link ON link.lead_id = below.id
    WHERE NOT EXISTS (
        SELECT 1 FROM identity_links AS later WHERE later.anonymous_lead_id = link.anonymous_lead_id
        AND (later.at, later.lead_id) > (link.at, link.lead_id)
    )
)
"""
PROFILES = f"""{IDS}
SELECT ids.person_id, profile.lead_id, profile.event_id, profile.revision, profile.occurred_at, profile.captured_at,
    profile.fields, profile.personal, profile.erased
FROM ids JOIN profiles AS profile ON profile.lead_id = ids.id
"""
# What an older installation did not keep apart counts as it stands now.
PAST_PROFILES = f"""{IDS}
SELECT DISTINCT ON (told.lead_id) ids.person_id, told.lead_id, told.event_id, told.revision, told.occurred_at,
    told.captured_at, told.fields, told.personal, false AS erased
FROM ids JOIN (
    SELECT lead_id, event_id, revision, occurred_at, captured_at, fields, personal FROM past_profiles
    UNION ALL
    SELECT lead_id, event_id, revision, occurred_at, captured_at, fields, personal FROM profiles WHERE NOT erased
) AS told ON told.lead_id = ids.id
WHERE told.occurred_at <= $2 ORDER BY told.lead_id, told.revision DESC
"""
CONSENTS_AT = f"""{IDS}
SELECT DISTINCT ON (consent.channel) consent.channel, consent.state
FROM ids JOIN consents AS consent ON consent.lead_id = ids.id
WHERE consent.occurred_at <= $2 ORDER BY consent.channel, consent.occurred_at DESC, consent.state
"""
CONSENTS = f"""{IDS}
SELECT DISTINCT ON (ids.person_id, consent.channel) ids.person_id, consent.channel, consent.state
FROM ids JOIN consents AS consent ON consent.lead_id = ids.id
ORDER BY ids.person_id, consent.channel, consent.occurred_at DESC, consent.state
"""
ASSIGNMENTS = f"""{IDS}
SELECT ids.person_id, assignment.revision, assignment.state, assignment.settled_at
FROM ids JOIN assignments AS assignment ON assignment.lead_id = ids.id
ORDER BY ids.person_id, assignment.revision, assignment.assignment_id
"""
DEALS = f"{IDS} SELECT ids.person_id, deal.status FROM ids JOIN deals AS deal ON deal.lead_id = ids.id"


class PersonDay(NamedTuple):
    """A limited day of a person."""

    person_id: LeadId
    key: DayKey


async def load_people(connection: Connection, person_ids: Iterable[LeadId]) -> dict[LeadId, Person]:
    """Those of the persons that are known."""
    ids = sorted(set(person_ids))
    rows = await connection.fetch(LOAD, ids) if ids else []
    return {LeadId(row["person_id"]): _person(row) for row in rows}


async def lock_people(connection: Connection, person_ids: Iterable[LeadId]) -> dict[LeadId, Person]:
    """The same, and nobody else changes them before this transaction ends."""
    rows = await connection.fetch(LOCK, sorted(set(person_ids)))
    return {LeadId(row["person_id"]): _person(row) for row in rows}


async def make_people(
    connection: Connection, person_ids: Iterable[LeadId], rules_version: int, fit: Fit
) -> set[LeadId]:
    """Rows for persons of whom nothing is known; answers those that had none."""
    rows = await connection.fetch(MAKE, sorted(set(person_ids)), rules_version, fit.points, fit.grade)
    return {LeadId(row["person_id"]) for row in rows}


async def forget_people(connection: Connection, person_ids: Iterable[LeadId]) -> None:
    """Remove the rows of ids that are no persons (any more)."""
    if ids := sorted(set(person_ids)):
        await connection.execute(FORGET_DAYS, ids)
        await connection.execute(FORGET, ids)


async def save_engagement(connection: Connection, people: Iterable[Person]) -> None:
    """Write what persons' touches come to."""
    rows = [
        {
            "person_id": person.person_id,
            "sums": _sums_out(person.engagement),
            "newest": person.engagement.newest,
            "raised_at": person.engagement.raised_at,
            "raised_until": person.engagement.raised_until,
            "types": sorted(person.engagement.types),
            "connected_at": person.engagement.contacts.connected_at,
            "attempts": list(person.engagement.contacts.attempts),
        }
        for person in people
    ]
    if rows:
        await connection.execute(SAVE_ENGAGEMENT, rows)


async def save_fit(connection: Connection, people: Iterable[Person]) -> None:
    """Write how persons fit, and what stages see of their profiles."""
    ordered = sorted(people, key=lambda person: person.person_id)
    if ordered:
        await connection.execute(
            SAVE_FIT,
            [person.person_id for person in ordered],
            [person.rules_version for person in ordered],
            [person.fit.points for person in ordered],
            [person.fit.grade for person in ordered],
            [_json(person.fit.rules) for person in ordered],
            [person.fit_from[0] if person.fit_from else None for person in ordered],
            [person.fit_from[1] if person.fit_from else None for person in ordered],
            [person.profile_revision for person in ordered],
            [person.lead for person in ordered],
        )


async def save_sales(connection: Connection, people: Iterable[Person]) -> None:
    """Write what sales made of persons."""
    ordered = sorted(people, key=lambda person: person.person_id)
    if ordered:
        await connection.execute(
            SAVE_SALES,
            [person.person_id for person in ordered],
            [person.sales.assignment for person in ordered],
            [person.sales.deal for person in ordered],
            [person.sales.rejected_at for person in ordered],
            [person.sales.settled_at for person in ordered],
        )


async def load_days(connection: Connection, days: Iterable[PersonDay]) -> dict[PersonDay, Day]:
    """Those of the limited days that have paid something."""
    wanted = sorted(set(days))
    if not wanted:
        return {}
    rows = await connection.fetch(
        LOAD_DAYS,
        [day.person_id for day in wanted],
        [day.key.rule_id for day in wanted],
        [day.key.day.isoformat() for day in wanted],
    )
    return {
        PersonDay(LeadId(row["person_id"]), DayKey(row["rule_id"], row["day"])): Day(
            tuple(Mark(at, event_id) for at, event_id in row["paid"]), row["more"]
        )
        for row in rows
    }


async def save_days(connection: Connection, days: Mapping[PersonDay, Day]) -> None:
    """Write limited days."""
    rows = [
        {
            "person_id": place.person_id,
            "rule_id": place.key.rule_id,
            "day": place.key.day,
            "paid": [list(mark) for mark in days[place].paid],
            "more": days[place].more,
        }
        for place in sorted(days)
    ]
    if rows:
        await connection.execute(SAVE_DAYS, rows)


async def forget_days(connection: Connection, person_ids: Iterable[LeadId]) -> None:
    """Remove all limited days of persons: they are made anew."""
    await connection.execute(FORGET_DAYS, sorted(set(person_ids)))


async def profile_rows(connection: Connection, person_ids: Sequence[LeadId]) -> list[asyncpg.Record]:
    """The profiles of all ids of persons, what is personal still sealed."""
    return await connection.fetch(PROFILES, person_ids)


async def past_profile_rows(connection: Connection, person_id: LeadId, at: datetime) -> list[asyncpg.Record]:
    """The profile of each of a person's ids as it was told last by an instant, what is personal still sealed."""
    return await connection.fetch(PAST_PROFILES, [person_id], at)


async def consents_at(connection: Connection, person_id: LeadId, at: datetime) -> dict[str, str]:
    """What a person allowed by an instant, by channel, as far as nothing else was said since."""
    return {row["channel"]: row["state"] for row in await connection.fetch(CONSENTS_AT, [person_id], at)}


async def consents_of(connection: Connection, person_ids: Sequence[LeadId]) -> dict[LeadId, dict[str, str]]:
    """What persons allow, by channel: the latest word counts, of two at once the refusal."""
    found: dict[LeadId, dict[str, str]] = {}
    for row in await connection.fetch(CONSENTS, person_ids):
        found.setdefault(LeadId(row["person_id"]), {})[row["channel"]] = row["state"]
    return found


async def assignments_of(connection: Connection, person_ids: Sequence[LeadId]) -> dict[LeadId, list[Assignment]]:
    """The assignments of persons, by revision."""
    found: dict[LeadId, list[Assignment]] = {}
    for row in await connection.fetch(ASSIGNMENTS, person_ids):
        assignment = Assignment(row["revision"], row["state"], row["settled_at"])
        found.setdefault(LeadId(row["person_id"]), []).append(assignment)
    return found


async def deals_of(connection: Connection, person_ids: Sequence[LeadId]) -> dict[LeadId, list[str]]:
    """The status of each deal of persons."""
    found: dict[LeadId, list[str]] = {}
    for row in await connection.fetch(DEALS, person_ids):
        found.setdefault(LeadId(row["person_id"]), []).append(row["status"])
    return found


def _person(row: asyncpg.Record) -> Person:
    sums, named = _sums_in(row["sums"])
    reached = row["attempts"] or row["connected_at"]
    contacts = Contacts(row["connected_at"], tuple(row["attempts"])) if reached else NO_CONTACTS
    types = frozenset(row["types"])
    engagement = Engagement(sums, row["newest"], row["raised_at"], row["raised_until"], types, named, contacts)
    given = tuple((rule_id, points) for rule_id, points in row["fit_rules"])
    fit_from = (EventId(row["fit_event_id"]), row["fit_at"]) if row["fit_event_id"] else None
    return Person(
        LeadId(row["person_id"]),
        row["rules_version"],
        engagement,
        Fit(row["fit"], row["grade"], given),
        fit_from,
        row["profile_revision"],
        row["lead"],
        Sales(row["assignment"], row["deal"], row["rejected_at"], row["settled_at"]),
    )


def _json(value: Any) -> str:
    """As text: in an array parameter a list would count as another dimension."""
    return orjson.dumps(value).decode()


def _sums_out(engagement: Engagement) -> dict[str, str]:
    """By half-life and group; of a named score by half-life, score and group. Neither a number nor an id holds an @."""
    stored = {_place(bucket, ""): _text(total) for bucket, total in engagement.sums.items()}
    for score_id, sums in engagement.named.items():
        stored |= {_place(bucket, f"@{score_id}"): _text(total) for bucket, total in sums.items()}
    return stored


def _place(bucket: Bucket, score: str) -> str:
    return f"{bucket.half_life}{score}|{bucket.group}"


def _text(total: Decaying) -> str:
    return f"{total.mantissa:x}:{total.exponent}"


def _sums_in(stored: Mapping[str, Any]) -> tuple[Sums, dict[str, Sums]]:
    scores: dict[str, dict[Bucket, Decaying]] = {"": {}}
    for name, text in stored.items():
        place, _, group = name.partition("|")
        half_life, _, score_id = place.partition("@")
        mantissa, _, exponent = text.partition(":")
        total = Decaying(int(mantissa, 16), int(exponent))
        scores.setdefault(score_id, {})[Bucket(group, int(half_life))] = total
    return scores.pop(""), dict(scores)
