"""What shows that a human has taken over, and pauses that somebody asked for or ended by hand."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.nurture.people import queries as people
from services.nurture.takeover.domain import HELD, Assigned, ByHand, Dealt, Known, Touched
from shared.db import Connection
from shared.events import AccountChanged, DealChanged, LeadAssigned, LeadCaptured, TouchRecorded
from shared.identity import Member, resolve_many
from shared.ids import AccountId, AssignmentId, LeadId

PUT_ASSIGNMENTS = """
INSERT INTO takeover_assignments AS known (assignment_id, lead_id, revision, rep_id, assigned_at, state)
SELECT *, 'offered' FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[])
ON CONFLICT (assignment_id) DO UPDATE SET
    lead_id = excluded.lead_id, revision = excluded.revision, rep_id = excluded.rep_id,
    assigned_at = excluded.assigned_at
WHERE known.revision < excluded.revision
"""
SETTLE_ASSIGNMENT = """
INSERT INTO takeover_assignments AS known (assignment_id, lead_id, revision, rep_id, state, settled_at)
VALUES ($1, $2, -1, $3, $4, $5)
ON CONFLICT (assignment_id) DO UPDATE SET state = excluded.state, settled_at = excluded.settled_at
WHERE known.settled_at IS NULL OR (known.settled_at, known.state) < (excluded.settled_at, excluded.state)
"""
PUT_DEALS = """
INSERT INTO takeover_deals AS known
    (deal_id, revision, lead_id, people, status, opened_at, closed_at, changed_at)
SELECT deal_id, revision, lead_id, people, status, opened_at, closed_at, changed_at
FROM jsonb_to_recordset($1) AS told (deal_id text, revision bigint, lead_id text, people text[], status text,
    opened_at timestamptz, closed_at timestamptz, changed_at timestamptz)
ON CONFLICT (deal_id) DO UPDATE SET
    revision = excluded.revision, lead_id = excluded.lead_id, people = excluded.people, status = excluded.status,
    opened_at = excluded.opened_at, closed_at = excluded.closed_at, changed_at = excluded.changed_at
WHERE known.revision < excluded.revision
"""
PUT_TOUCHES = """
INSERT INTO takeover_touches AS known (origin, touch_id, type, position, lead_id, at, meeting_at, automated)
SELECT origin, touch_id, type, position, told.lead_id, at, meeting_at, automated
FROM jsonb_to_recordset($1) AS told (origin text, touch_id text, type text, position bigint, lead_id text,
    at timestamptz, meeting_at timestamptz, automated boolean)
WHERE NOT EXISTS (SELECT FROM identity_erased AS gone WHERE gone.lead_id = told.lead_id)
ON CONFLICT (origin, touch_id, type) DO UPDATE SET
    position = excluded.position, lead_id = excluded.lead_id, at = excluded.at, meeting_at = excluded.meeting_at,
    automated = excluded.automated
WHERE known.position < excluded.position
"""
PUT_LEAD_ACCOUNTS = """
INSERT INTO lead_accounts AS known (lead_id, revision, account_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[]) AS told (lead_id, revision, account_id)
WHERE NOT EXISTS (SELECT FROM identity_erased AS gone WHERE gone.lead_id = told.lead_id)
ON CONFLICT (lead_id) DO UPDATE SET revision = excluded.revision, account_id = excluded.account_id
WHERE known.revision < excluded.revision
"""
PUT_MERGED_ACCOUNTS = """
INSERT INTO merged_accounts AS known (account_id, revision, into_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])
ON CONFLICT (account_id) DO UPDATE SET revision = excluded.revision, into_id = excluded.into_id
WHERE known.revision < excluded.revision
"""
FORGET = """
WITH touches AS (DELETE FROM takeover_touches WHERE lead_id = ANY($1)),
     accounts AS (DELETE FROM lead_accounts WHERE lead_id = ANY($1))
UPDATE pauses SET reason = NULL, sealed = NULL WHERE lead_id = ANY($1)
"""
KNOWN = """
SELECT 'assignment' AS kind, assignment_id AS name, lead_id, state AS word, revision AS number, assigned_at AS at,
    settled_at AS other_at, NULL::timestamptz AS changed_at, NULL::text AS author, NULL::text AS told,
    NULL::text[] AS people
FROM takeover_assignments WHERE lead_id = ANY($1) AND assigned_at IS NOT NULL
UNION ALL
SELECT 'touch', touch_id, lead_id, type, 0, at, meeting_at, NULL, NULL, NULL, NULL
FROM takeover_touches WHERE lead_id = ANY($1) AND NOT automated
UNION ALL
SELECT 'deal', deal_id, lead_id, status, revision, opened_at, closed_at, changed_at, NULL, NULL, people
FROM takeover_deals WHERE people && $1
UNION ALL
SELECT 'hand', pause_id, lead_id, reach, 0, since, until, NULL, author, reason, NULL
FROM pauses WHERE lead_id = ANY($1) AND released_at IS NULL
UNION ALL
SELECT 'released', pause_id, lead_id, '', 0, at, NULL, NULL, author, NULL, NULL FROM pause_releases
WHERE lead_id = ANY($1)
UNION ALL
SELECT 'company', asked.pause_id, asked.lead_id, asked.reach, 0, asked.since, asked.until, NULL, asked.author, NULL,
    ARRAY[mine.lead_id]
FROM pauses AS asked
JOIN lead_accounts AS theirs ON theirs.lead_id = asked.lead_id
LEFT JOIN merged_accounts AS their_name ON their_name.account_id = theirs.account_id
JOIN lead_accounts AS mine ON mine.lead_id = ANY($1)
LEFT JOIN merged_accounts AS my_name ON my_name.account_id = mine.account_id
WHERE asked.reach = 'account' AND asked.released_at IS NULL AND asked.lead_id <> ALL($1)
  AND coalesce(their_name.into_id, theirs.account_id) = coalesce(my_name.into_id, mine.account_id)
"""
COLLEAGUES = """
WITH own AS (
    SELECT coalesce(merged.into_id, mine.account_id) AS account_id
    FROM lead_accounts AS mine LEFT JOIN merged_accounts AS merged USING (account_id)
    WHERE mine.lead_id = ANY($1) AND mine.account_id IS NOT NULL
), names AS (
    SELECT account_id FROM own
    UNION
    SELECT merged.account_id FROM own JOIN merged_accounts AS merged ON merged.into_id = own.account_id
)
SELECT lead_id FROM lead_accounts JOIN names USING (account_id) WHERE lead_id <> ALL($1)
"""
HELD_SINCE = """
SELECT min((held->>'since')::timestamptz) FROM messages, jsonb_array_elements(decision->'holds') AS held
WHERE enrolment_id = $1 AND step_id = $2 AND state = 'planned' AND starts_with(held->>'reason', $3)
"""
WROTE_ALREADY = "SELECT EXISTS (SELECT FROM messages WHERE lead_id = $1 AND enrolment_id = $2 AND step_id <> $3)"
RELEASE_HELD = f"""
UPDATE enrolments SET due_at = clock_timestamp()
WHERE active AND hold IS NOT NULL AND claim IS NULL AND starts_with(hold, '{HELD}') AND due_at > clock_timestamp()
  AND ($1::text[] IS NULL OR lead_id = ANY($1))
"""
RELEASE_SOME = f"""
WITH piece AS (
    SELECT enrolment_id FROM enrolments
    WHERE active AND starts_with(hold, '{HELD}') AND enrolment_id > $1 ORDER BY enrolment_id LIMIT $2
), released AS (
    UPDATE enrolments SET due_at = clock_timestamp() FROM piece
    WHERE enrolments.enrolment_id = piece.enrolment_id AND active AND claim IS NULL
)
SELECT max(enrolment_id) FROM piece
"""
POLICY_SEEN = "SELECT version FROM takeover_policy"
SAW_POLICY = """
INSERT INTO takeover_policy (single, version) VALUES (true, $1)
ON CONFLICT (single) DO UPDATE SET version = excluded.version
"""
PAUSE = """
INSERT INTO pauses (pause_id, lead_id, reach, since, until, author, reason, sealed)
SELECT $1, $2, $3, $4, $5, $6, $7, CASE WHEN NOT EXISTS (SELECT FROM identity_erased WHERE lead_id = $2) THEN $8 END
ON CONFLICT DO NOTHING
"""
END_PAUSE = """
UPDATE pauses SET released_at = $3, released_by = $4
WHERE pause_id = $1 AND lead_id = ANY($2) AND released_at IS NULL RETURNING lead_id
"""
RESTORE_END = "UPDATE pauses SET released_at = $2, released_by = $3 WHERE pause_id = $1 AND released_at IS NULL"
RELEASE = """
INSERT INTO pause_releases (pause_id, lead_id, at, author) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
WRITTEN = "SELECT pause_id, lead_id, reason, sealed FROM pauses WHERE pause_id = ANY($1)"


async def save_assignments(connection: Connection, events: Sequence[LeadAssigned]) -> None:
    """Keep who has which lead; of the words about one assignment that with the highest revision."""
    newest = {one.assignment_id: one for one in sorted(events, key=lambda one: one.revision)}
    rows = [newest[key] for key in sorted(newest)]
    await connection.execute(
        PUT_ASSIGNMENTS,
        [row.assignment_id for row in rows],
        [row.lead_id for row in rows],
        [row.revision for row in rows],
        [row.rep_id for row in rows],
        [row.occurred_at for row in rows],
    )


async def settle_assignment(  # noqa: PLR0913  # a row
    connection: Connection, assignment_id: AssignmentId, lead_id: LeadId, rep_id: str, state: str, at: datetime
) -> None:
    """Keep what became of an assignment; the latest word counts."""
    await connection.execute(SETTLE_ASSIGNMENT, assignment_id, lead_id, rep_id, state, at)


async def save_deals(connection: Connection, events: Sequence[DealChanged]) -> None:
    """Keep how deals stand."""
    newest = {one.deal_id: one for one in sorted(events, key=lambda one: one.revision)}
    rows = [
        {
            "deal_id": one.deal_id,
            "revision": one.revision,
            "lead_id": one.lead_id,
            "people": sorted(people_of(one)),
            "status": one.status,
            "opened_at": one.opened_at,
            "closed_at": one.closed_at,
            "changed_at": one.occurred_at,
        }
        for _, one in sorted(newest.items())
    ]
    await connection.execute(PUT_DEALS, rows)


def people_of(event: DealChanged) -> set[LeadId]:
    """Everybody who has a part in a deal."""
    return {event.lead_id, *(one.lead_id for one in event.stakeholders)}


async def save_touches(connection: Connection, told: Sequence[tuple[TouchRecorded, datetime | None]]) -> None:
    """Keep what shows that a human has taken over, with the times of meetings; nothing of an erased person."""
    newest = {
        (one.origin, one.touch_id, one.type): (one, meeting_at)
        for one, meeting_at in sorted(told, key=lambda pair: pair[0].position)
    }
    rows = [
        {
            "origin": one.origin,
            "touch_id": one.touch_id,
            "type": one.type,
            "position": one.position,
            "lead_id": one.lead_id,
            "at": one.occurred_at,
            "meeting_at": meeting_at,
            "automated": one.automated,
        }
        for _, (one, meeting_at) in sorted(newest.items())
    ]
    await connection.execute(PUT_TOUCHES, rows)


async def save_lead_accounts(connection: Connection, events: Sequence[LeadCaptured]) -> None:
    """Keep which company each id is of, and that it is of none any more."""
    newest = {one.lead_id: one for one in sorted(events, key=lambda one: one.revision)}
    rows = [newest[key] for key in sorted(newest)]
    await connection.execute(
        PUT_LEAD_ACCOUNTS,
        [row.lead_id for row in rows],
        [row.revision for row in rows],
        [row.account_id for row in rows],
    )


async def save_merged_accounts(connection: Connection, events: Sequence[AccountChanged]) -> None:
    """Keep which companies turned out to be others, and that one did not after all."""
    newest: dict[AccountId, AccountChanged] = {}
    for one in sorted(events, key=lambda one: one.revision):
        newest[one.account_id] = one
    rows = [newest[key] for key in sorted(newest)]
    await connection.execute(
        PUT_MERGED_ACCOUNTS,
        [row.account_id for row in rows],
        [row.revision for row in rows],
        [row.merged_into for row in rows],
    )


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Delete what is personal."""
    await connection.execute(FORGET, lead_ids)


async def known_of(
    connection: Connection, families: Mapping[LeadId, Sequence[Member]], now: datetime
) -> dict[LeadId, Known]:
    """All that may pause marketing to each of these persons: one statement, however many."""
    ids = sorted({member.lead_id for family in families.values() for member in family})
    rows = await connection.fetch(KNOWN, ids)
    by_id: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        for lead_id in _concerned(row):
            by_id.setdefault(lead_id, []).append(place)
    known = {}
    for person_id, family in families.items():
        places = sorted({place for member in family for place in by_id.get(member.lead_id, ())})
        known[person_id] = _known([rows[place] for place in places], family, now)
    return known


async def colleagues_of(connection: Connection, ids: Sequence[LeadId]) -> dict[LeadId, list[Member]]:
    """The other people of the company that one of these ids is of, each with their ids."""
    found = [(LeadId(row["lead_id"]), None) for row in await connection.fetch(COLLEAGUES, ids)]
    if not found:
        return {}
    persons = set(await resolve_many(connection, found)) - set(ids)
    return await people.load_families(connection, persons)


async def held_since(connection: Connection, enrolment_id: str, step_id: str) -> datetime | None:
    """Since when a run's message waits because a human has taken over; None where it has not waited yet."""
    since: datetime | None = await connection.fetchval(HELD_SINCE, enrolment_id, step_id, HELD)
    return since


async def wrote_already(connection: Connection, lead_id: LeadId, enrolment_id: str, step_id: str) -> bool:
    """Whether a run has come past another message."""
    return bool(await connection.fetchval(WROTE_ALREADY, lead_id, enrolment_id, step_id))


async def release_held(connection: Connection, ids: Iterable[LeadId] | None) -> None:
    """Look again now at what waits because a human has taken over: of these ids, or of everybody."""
    await connection.execute(RELEASE_HELD, None if ids is None else sorted(ids))


async def release_some(connection: Connection, after: str, limit: int) -> str | None:
    """Look again now at some of what waits because a human has taken over; answers where they end, None behind all."""
    last: str | None = await connection.fetchval(RELEASE_SOME, after, limit)
    return last


async def policy_seen(connection: Connection) -> int | None:
    """The version of the policy under which everything was last looked at."""
    version: int | None = await connection.fetchval(POLICY_SEEN)
    return version


async def saw_policy(connection: Connection, version: int) -> None:
    """Note that everything was looked at under this version of the policy."""
    await connection.execute(SAW_POLICY, version)


async def save_pause(connection: Connection, pause: ByHand, sealed: str | None) -> None:
    """Keep a pause that somebody asked for; its reason sealed, where the person has a key."""
    reason = pause.reason if sealed is None else None
    given = pause.lead_id, pause.reach, pause.since, pause.until, pause.author, reason, sealed
    await connection.execute(PAUSE, pause.pause_id, *given)


async def end_pause(
    connection: Connection, pause_id: str, ids: Sequence[LeadId], at: datetime, author: str
) -> LeadId | None:
    """End a pause that was asked for, for everybody; answers under which id it was, None when it is none of theirs."""
    asked_under: str | None = await connection.fetchval(END_PAUSE, pause_id, ids, at, author)
    return None if asked_under is None else LeadId(asked_under)


async def restore_end(connection: Connection, pause_id: str, at: datetime, author: str) -> None:
    """Note that a pause that was asked for has ended."""
    await connection.execute(RESTORE_END, pause_id, at, author)


async def release(connection: Connection, pause_id: str, lead_id: LeadId, at: datetime, author: str) -> None:
    """End a pause for one person."""
    await connection.execute(RELEASE, pause_id, lead_id, at, author)


async def written_reasons(connection: Connection, pause_ids: Sequence[str]) -> list[asyncpg.Record]:
    """The reasons that were given for pauses, as they are stored."""
    rows: list[asyncpg.Record] = await connection.fetch(WRITTEN, pause_ids)
    return rows


def _concerned(row: Any) -> Sequence[str]:
    """The ids that a row is about."""
    return row["people"] or [row["lead_id"]]


def _known(rows: Iterable[Any], family: Sequence[Member], now: datetime) -> Known:
    """What rows say of one person, without facts of an id at times at which it was somebody else's."""
    own = frozenset(member.lead_id for member in family)
    by_kind: dict[str, list[Any]] = {}
    for row in rows:
        if any(people.covers(family, lead_id, row["at"]) for lead_id in _concerned(row)):
            by_kind.setdefault(row["kind"], []).append(row)
    return Known(
        own=own,
        assignments=[
            Assigned(row["name"], row["lead_id"], row["number"], row["word"], row["at"], row["other_at"])
            for row in by_kind.get("assignment", ())
        ],
        touches=[
            Touched(row["name"], row["lead_id"], row["word"], row["at"], row["other_at"])
            for row in by_kind.get("touch", ())
        ],
        deals=[
            Dealt(row["name"], row["lead_id"], row["word"], row["at"], row["changed_at"], row["other_at"])
            for row in by_kind.get("deal", ())
        ],
        by_hand=[
            ByHand(row["name"], row["lead_id"], row["word"], row["at"], row["other_at"], row["author"], row["told"])
            for row in [*by_kind.get("hand", ()), *by_kind.get("company", ())]
            if row["other_at"] is None or row["other_at"] > now
        ],
        released=frozenset(row["name"] for row in by_kind.get("released", ())),
    )
