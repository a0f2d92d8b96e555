"""The statements about segments: which versions count, who is in them, what was told, and when to look again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.scoring.people.queries import IDS
from services.scoring.segments.domain import Before, Found, Move, Told
from shared.db import Connection
from shared.ids import LeadId, SegmentId

KIND = "segment"
COLUMNS = "segment_id, kind, version, serving, building, built_up_to, counted, people, telling, deleted"
ALL = f"SELECT {COLUMNS} FROM segments WHERE serving IS NOT NULL OR building IS NOT NULL ORDER BY segment_id"
ONE = f"SELECT {COLUMNS} FROM segments WHERE segment_id = $1 AND NOT deleted"
LOCK_ONE = f"SELECT {COLUMNS} FROM segments WHERE segment_id = $1 FOR UPDATE"
SHARE_ONE = f"{ONE} FOR SHARE"
LISTED = f"SELECT {COLUMNS} FROM segments WHERE NOT deleted AND segment_id > $1 ORDER BY segment_id LIMIT $2"
EVERY = f"SELECT {COLUMNS} FROM segments WHERE NOT deleted ORDER BY segment_id"
NUMBER = "SELECT count(*) FROM segments WHERE NOT deleted"
AT_WORK = """
SELECT segment_id FROM segments WHERE building IS NOT NULL OR telling OR (deleted AND serving IS NOT NULL)
ORDER BY segment_id
"""
# Readers of the live versions share this lock to the end of their transaction; whoever switches one waits for them.
SHARE = "SELECT pg_advisory_xact_lock_shared(hashtextextended('scoring/segments', 0))"
ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('scoring/segments', 0))"
SOON = "SET LOCAL lock_timeout = '300ms'"
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('scoring/segments/saving', 0))"
MAKE = """
INSERT INTO segments (segment_id, kind, version, serving) VALUES ($1, $2, $3, $4)
ON CONFLICT (segment_id) DO UPDATE SET kind = $2, version = $3, serving = $4, deleted = false
"""
PUT_VERSION = "UPDATE segments SET version = $2 WHERE segment_id = $1"
BEGIN = """
UPDATE segments SET building = $2, built_up_to = '', counted = 0, people = (SELECT count(*) FROM scores)
WHERE segment_id = $1
"""
STOP = "UPDATE segments SET building = NULL, telling = true WHERE segment_id = $1"
ADVANCE = "UPDATE segments SET built_up_to = $2, counted = counted + $3 WHERE segment_id = $1"
SWITCH = """
UPDATE segments SET serving = building, building = NULL, counted = people, telling = true WHERE segment_id = $1
"""
DELETE = "UPDATE segments SET deleted = true WHERE segment_id = $1"
RETIRE = "UPDATE segments SET serving = NULL, building = NULL, telling = true WHERE segment_id = $1"
TOLD_ALL = "UPDATE segments SET telling = false WHERE segment_id = $1"
FORGET_VERSION = "DELETE FROM segment_members WHERE segment_id = $1 AND version = $2"
FORGET_OTHERS = """
DELETE FROM segment_members WHERE (person_id, segment_id, version) IN (
    SELECT person_id, segment_id, version FROM segment_members
    WHERE segment_id = $1 AND version <> ALL($2::integer[]) LIMIT $3
)
"""
PEOPLE_AFTER = "SELECT person_id FROM scores WHERE person_id > $1 ORDER BY person_id LIMIT $2"
PEOPLE = "SELECT count(*) FROM scores"
SAMPLED = "SELECT person_id FROM scores TABLESAMPLE BERNOULLI ($1) ORDER BY random() LIMIT $2"
# Those of whom something else was told than what serves.
UNTOLD = """
(SELECT person_id FROM segment_told AS told WHERE segment_id = $1 AND member AND person_id > $3 AND NOT EXISTS (
    SELECT FROM segment_members AS found
    WHERE found.person_id = told.person_id AND found.segment_id = $1 AND found.version = $2
) ORDER BY person_id LIMIT $4)
UNION
(SELECT person_id FROM segment_members AS found
WHERE segment_id = $1 AND version = $2 AND person_id > $3 AND NOT EXISTS (
    SELECT FROM segment_told AS told
    WHERE told.person_id = found.person_id AND told.segment_id = $1 AND told.member
) ORDER BY person_id LIMIT $4)
ORDER BY person_id LIMIT $4
"""
RESULTS = "SELECT person_id, segment_id, version FROM segment_members WHERE person_id = ANY($1)"
TOLD = "SELECT person_id, segment_id, member, revision, since FROM segment_told WHERE person_id = ANY($1)"
PUT_RESULTS = """
INSERT INTO segment_members (person_id, segment_id, version, since, why)
SELECT person_id, segment_id, version, $2, why
FROM json_to_recordset($1) AS new (person_id text, segment_id text, version integer, why jsonb)
ORDER BY person_id, segment_id, version
ON CONFLICT DO NOTHING
"""
DROP_RESULTS = """
DELETE FROM segment_members WHERE (person_id, segment_id, version) IN
    (SELECT * FROM unnest($1::text[], $2::text[], $3::integer[]))
"""
PUT_TOLD = """
INSERT INTO segment_told (person_id, segment_id, member, revision, since)
SELECT * FROM unnest($1::text[], $2::text[], $3::boolean[], $4::bigint[], $5::timestamptz[])
ON CONFLICT (person_id, segment_id) DO UPDATE
SET member = excluded.member, revision = excluded.revision, since = excluded.since
"""
DUE = "SELECT person_id FROM segment_due WHERE due_at <= $1 ORDER BY due_at LIMIT $2"
NEXT_DUE = "SELECT min(due_at) FROM segment_due"
PUT_DUE = """
INSERT INTO segment_due AS known (person_id, due_at) SELECT * FROM unnest($1::text[], $2::timestamptz[])
ON CONFLICT (person_id) DO UPDATE SET due_at = excluded.due_at WHERE known.due_at <> excluded.due_at
"""
PUT_DUE_SOONER = """
INSERT INTO segment_due AS known (person_id, due_at) SELECT * FROM unnest($1::text[], $2::timestamptz[])
ON CONFLICT (person_id) DO UPDATE SET due_at = excluded.due_at WHERE known.due_at > excluded.due_at
"""
DROP_DUE = "DELETE FROM segment_due WHERE person_id = ANY($1)"
ERASED = "SELECT lead_id FROM identity_erased WHERE lead_id = ANY($1)"
FORGET_LIST = "DELETE FROM segment_listed WHERE segment_id = $1"
LISTS_OF = f"""{IDS}
SELECT DISTINCT ids.person_id, listed.segment_id FROM ids JOIN segment_listed AS listed ON listed.lead_id = ids.id
"""
MEMBERS = """
SELECT found.person_id, coalesce(told.since, found.since) AS since, found.version, found.why
FROM segment_members AS found LEFT JOIN segment_told AS told
    ON told.person_id = found.person_id AND told.segment_id = found.segment_id AND told.member
WHERE found.segment_id = $1 AND found.version = $2 AND found.person_id > $3 ORDER BY found.person_id LIMIT $4
"""
SIZES = """
SELECT segments.segment_id,
    (SELECT count(*) FROM segment_members AS found
     WHERE found.segment_id = segments.segment_id AND found.version = segments.serving) AS members
FROM segments WHERE segment_id = ANY($1)
"""
OF_PERSON = """
SELECT found.segment_id, coalesce(told.since, found.since) AS since, found.version, found.why
FROM segment_members AS found JOIN segments ON segments.segment_id = found.segment_id
    AND segments.serving = found.version AND NOT segments.deleted
LEFT JOIN segment_told AS told
    ON told.person_id = found.person_id AND told.segment_id = found.segment_id AND told.member
WHERE found.person_id = $1 ORDER BY found.segment_id
"""


KNOWN = "SELECT person_id FROM scores WHERE person_id = ANY($1)"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is decided about a segment; see the table."""

    segment_id: SegmentId
    kind: str
    version: int
    serving: int | None
    building: int | None
    built_up_to: LeadId
    counted: int
    people: int
    telling: bool
    deleted: bool


async def segments_at_work(connection: Connection) -> list[Kept]:
    """The segments that serve or are being built; facts concern no others."""
    return [Kept(**row) for row in await connection.fetch(ALL)]


async def share_versions(connection: Connection) -> None:
    """Keep which versions count as it is, to the end of the transaction."""
    await connection.execute(SHARE)


async def be_alone(connection: Connection) -> None:
    """Wait, not for long, until nobody relies on which versions count. Raises LockNotAvailableError."""
    await connection.execute(SOON)
    await connection.execute(ALONE)


async def take_turn(connection: Connection) -> None:
    """One after the other: of two that are saved at once each would miss what the other names."""
    await connection.execute(TAKE_TURN)


async def segment_row(connection: Connection, segment_id: SegmentId) -> Kept | None:
    """What is decided about a segment, unless it is deleted."""
    row = await connection.fetchrow(ONE, segment_id)
    return Kept(**row) if row else None


async def share_segment(connection: Connection, segment_id: SegmentId) -> Kept | None:
    """The same, and it is not deleted before this transaction ends."""
    row = await connection.fetchrow(SHARE_ONE, segment_id)
    return Kept(**row) if row else None


async def lock_segment(connection: Connection, segment_id: SegmentId) -> Kept | None:
    """The same of a deleted one too, and nobody else changes it before this transaction ends."""
    row = await connection.fetchrow(LOCK_ONE, segment_id)
    return Kept(**row) if row else None


async def segment_rows(connection: Connection, after: str, limit: int) -> list[Kept]:
    """A page of segments in the order of their ids."""
    return [Kept(**row) for row in await connection.fetch(LISTED, after, limit)]


async def every_segment(connection: Connection) -> list[Kept]:
    """All segments: their number has an end."""
    return [Kept(**row) for row in await connection.fetch(EVERY)]


async def number_of_segments(connection: Connection) -> int:
    """How many there are."""
    number: int = await connection.fetchval(NUMBER)
    return number


async def with_work(connection: Connection) -> list[SegmentId]:
    """Segments that are to be computed, told or cleared away."""
    return [SegmentId(row["segment_id"]) for row in await connection.fetch(AT_WORK)]


async def make_segment(
    connection: Connection, segment_id: SegmentId, kind: str, version: int, serving: int | None
) -> None:
    """A new segment, or a deleted one again."""
    await connection.execute(MAKE, segment_id, kind, version, serving)


async def put_version(connection: Connection, segment_id: SegmentId, version: int) -> None:
    """This version is active, and dealt with."""
    await connection.execute(PUT_VERSION, segment_id, version)


async def begin_building(connection: Connection, segment_id: SegmentId, version: int) -> None:
    """Compute a version from the first person on, beside the one that serves."""
    await connection.execute(FORGET_VERSION, segment_id, version)
    await connection.execute(BEGIN, segment_id, version)


async def stop_building(connection: Connection, segment_id: SegmentId) -> None:
    """What serves is right as it is."""
    await connection.execute(STOP, segment_id)


async def advance(connection: Connection, segment_id: SegmentId, up_to: LeadId, number: int) -> None:
    """So many more people are computed."""
    await connection.execute(ADVANCE, segment_id, up_to, number)


async def switch(connection: Connection, segment_id: SegmentId) -> None:
    """What was built serves from now on."""
    await connection.execute(SWITCH, segment_id)


async def mark_deleted(connection: Connection, segment_id: SegmentId) -> None:
    """There is no such segment any more; the timer clears it away."""
    await connection.execute(DELETE, segment_id)


async def retire(connection: Connection, segment_id: SegmentId) -> None:
    """No version of it serves any more."""
    await connection.execute(RETIRE, segment_id)
    await connection.execute(FORGET_LIST, segment_id)


async def told_all(connection: Connection, segment_id: SegmentId) -> None:
    """Others know what serves."""
    await connection.execute(TOLD_ALL, segment_id)


async def forget_others(connection: Connection, kept: Kept, limit: int) -> int:
    """Forget some of the results of versions that neither serve nor are being built; answers how many."""
    versions = [version for version in (kept.serving, kept.building) if version is not None]
    done: str = await connection.execute(FORGET_OTHERS, kept.segment_id, versions, limit)
    return int(done.rpartition(" ")[2])


async def people_after(connection: Connection, after: str, limit: int) -> list[LeadId]:
    """The next people in the order of their ids."""
    return [LeadId(row["person_id"]) for row in await connection.fetch(PEOPLE_AFTER, after, limit)]


async def number_of_people(connection: Connection) -> int:
    """Of how many people anything is known."""
    number: int = await connection.fetchval(PEOPLE)
    return number


async def sampled_people(connection: Connection, share: float, limit: int) -> list[LeadId]:
    """People taken at random, each with the same probability."""
    return [LeadId(row["person_id"]) for row in await connection.fetch(SAMPLED, share * 100, limit)]


async def untold(
    connection: Connection, segment_id: SegmentId, serving: int | None, after: str, limit: int
) -> list[LeadId]:
    """The next people of whom something else was told than what serves."""
    rows = await connection.fetch(UNTOLD, segment_id, serving or 0, after, limit)
    return [LeadId(row["person_id"]) for row in rows]


async def kept_before(connection: Connection, person_ids: Sequence[LeadId]) -> dict[LeadId, Before]:
    """What is kept of people."""
    results: dict[LeadId, set[tuple[SegmentId, int]]] = {}
    for row in await connection.fetch(RESULTS, person_ids):
        results.setdefault(LeadId(row["person_id"]), set()).add((SegmentId(row["segment_id"]), row["version"]))
    told: dict[LeadId, dict[SegmentId, Told]] = {}
    for row in await connection.fetch(TOLD, person_ids):
        known = told.setdefault(LeadId(row["person_id"]), {})
        known[SegmentId(row["segment_id"])] = Told(row["member"], row["revision"], row["since"])
    return {one: Before(frozenset(results.get(one, ())), told.get(one, {})) for one in person_ids}


async def save_found(connection: Connection, found: Mapping[LeadId, Sequence[Found]], at: datetime) -> None:
    """Write the results that changed."""
    rows = [(person_id, one) for person_id in sorted(found) for one in found[person_id]]
    fresh = [
        {
            "person_id": person_id,
            "segment_id": one.segment.segment_id,
            "version": one.segment.version,
            "why": dict(one.why),
        }
        for person_id, one in rows
        if one.member
    ]
    if fresh:
        await connection.execute(PUT_RESULTS, fresh, at)
    if gone := [(person_id, *one.segment.key) for person_id, one in rows if not one.member]:
        await connection.execute(DROP_RESULTS, *(list(column) for column in zip(*gone, strict=True)))


async def save_told(connection: Connection, moves: Sequence[Move]) -> None:
    """Write what is told."""
    if moves:
        ordered = sorted(moves, key=lambda move: (move.person_id, move.segment.segment_id))
        await connection.execute(
            PUT_TOLD,
            [move.person_id for move in ordered],
            [move.segment.segment_id for move in ordered],
            [move.told.member for move in ordered],
            [move.told.revision for move in ordered],
            [move.told.since for move in ordered],
        )


async def due_people(connection: Connection, now: datetime, limit: int) -> list[LeadId]:
    """People whose time has come."""
    return [LeadId(row["person_id"]) for row in await connection.fetch(DUE, now, limit)]


async def next_due(connection: Connection) -> datetime | None:
    """When the next person's time comes."""
    at: datetime | None = await connection.fetchval(NEXT_DUE)
    return at


async def schedule(connection: Connection, due: Mapping[LeadId, datetime | None], *, anew: bool) -> None:
    """Write when to look again. `anew` also puts a look off or takes it away, else it only moves closer."""
    planned = [(person_id, at) for person_id, at in sorted(due.items()) if at is not None]
    if planned:
        people, times = zip(*planned, strict=True)
        await connection.execute(PUT_DUE if anew else PUT_DUE_SOONER, people, times)
    if anew and (idle := sorted(person_id for person_id, at in due.items() if at is None)):
        await connection.execute(DROP_DUE, idle)


async def erased_of(connection: Connection, person_ids: Sequence[LeadId]) -> set[LeadId]:
    """Which of these were erased."""
    return {LeadId(row["lead_id"]) for row in await connection.fetch(ERASED, person_ids)}


async def lists_of(connection: Connection, person_ids: Sequence[LeadId]) -> dict[LeadId, set[SegmentId]]:
    """The lists that people are on, under any of their ids."""
    found: dict[LeadId, set[SegmentId]] = {}
    for row in await connection.fetch(LISTS_OF, person_ids):
        found.setdefault(LeadId(row["person_id"]), set()).add(SegmentId(row["segment_id"]))
    return found


async def known_people(connection: Connection, person_ids: Iterable[LeadId]) -> set[LeadId]:
    """Those of whom anything is known."""
    rows = await connection.fetch(KNOWN, sorted(set(person_ids)))
    return {LeadId(row["person_id"]) for row in rows}


async def members_of(connection: Connection, kept: Kept, after: str, limit: int) -> list[asyncpg.Record]:
    """A page of a segment's members, in the order of their ids."""
    return await connection.fetch(MEMBERS, kept.segment_id, kept.serving or 0, after, limit)


async def sizes(connection: Connection, segment_ids: Sequence[SegmentId]) -> dict[SegmentId, int]:
    """How many members segments have."""
    return {SegmentId(row["segment_id"]): row["members"] for row in await connection.fetch(SIZES, segment_ids)}


async def segments_of_person(connection: Connection, person_id: LeadId) -> list[asyncpg.Record]:
    """The segments that a person is in, since when and why."""
    return await connection.fetch(OF_PERSON, person_id)
