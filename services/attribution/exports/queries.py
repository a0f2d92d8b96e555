"""The statements about exports, their parts, and the rows that are exported: a page after the one before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

import asyncpg

from services.attribution.domain import SHARE_UNITS
from services.attribution.exports.domain import ExportKind, Format, State
from shared.db import Connection, one
from shared.identity import resolve_many
from shared.ids import LeadId

# Who reads nothing for so long is not there any more; a page of a wide export may take longer than a statement else.
PATIENCE = """
SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL statement_timeout = '300s'
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, $2, $3, $4)"
ADD = """
INSERT INTO exports (export_id, kind, format, model, from_at, to_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING *
"""
UNFINISHED = "SELECT count(*) FROM exports WHERE state IN ('waiting', 'running')"
GET = "SELECT * FROM exports WHERE export_id = $1"
NEXT = "SELECT * FROM exports WHERE state IN ('waiting', 'running') ORDER BY created_at, export_id LIMIT 1"
NEWEST = """
SELECT * FROM exports WHERE $1::timestamptz IS NULL OR (created_at, export_id) < ($1, $2)
ORDER BY created_at DESC, export_id DESC LIMIT $3
"""
DROP = "DELETE FROM exports WHERE export_id = $1 RETURNING export_id"
DROP_OLD = "DELETE FROM exports WHERE finished_at < clock_timestamp() - make_interval(days => $1)"
BEGIN = """
UPDATE exports SET state = 'running', started_at = coalesce(started_at, clock_timestamp()), total = $2,
    snapshots = snapshots + 1, failures = failures + 1
WHERE export_id = $1 AND state IN ('waiting', 'running')
"""
FAIL = """
UPDATE exports SET state = 'failed', finished_at = clock_timestamp()
WHERE export_id = $1 AND state IN ('waiting', 'running')
"""
# Another process may have written the part, or somebody dropped the export.
ADVANCE = """
UPDATE exports SET parts = parts + $3, done = done + $4, bytes = bytes + $5, after = $6, failures = 0,
    state = CASE WHEN $7 THEN 'done' ELSE state END, finished_at = CASE WHEN $7 THEN clock_timestamp() END
WHERE export_id = $1 AND parts = $2 AND state = 'running' RETURNING export_id
"""
ADD_PART = """
INSERT INTO export_parts (export_id, number, rows, size, etag, read_at, first_lead, last_lead, content)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
PARTS = """
SELECT number, rows, size, etag, read_at, content IS NULL AS erased FROM export_parts
WHERE export_id = $1 AND number > $2 ORDER BY number LIMIT $3
"""
PART = "SELECT etag, content FROM export_parts WHERE export_id = $1 AND number = $2"
# An erasure and a part that is written meanwhile must not miss each other.
TURN = "SELECT pg_advisory_xact_lock(hashtextextended('attribution/export-parts', 0))"
ERASED_AMONG = "SELECT EXISTS (SELECT 1 FROM leads WHERE lead_id = ANY($1) AND erased)"
ERASE_PARTS = "UPDATE export_parts SET content = NULL, size = 0 WHERE first_lead <= $1 AND last_lead >= $1"
# The tables by their names: a projection that was built anew is swapped in under the same ones.
PROJECTION = "SELECT 'touches'::regclass::oid"
WINDOW = "($1::timestamptz IS NULL OR occurred_at >= $1) AND ($2::timestamptz IS NULL OR occurred_at < $2)"
TOTALS = {
    "journeys": f"SELECT count(*) FROM touches WHERE {WINDOW}",
    "conversions": f"SELECT count(*) FROM conversions WHERE lead_id IS NOT NULL AND {WINDOW}",
    "credits": f"SELECT count(*) FROM paths WHERE {WINDOW}",
}
TOUCHES = f"""
SELECT lead_id AS told_lead_id, touch_id, origin, occurred_at, received_at, type, channel, channel_rule, source, medium,
    campaign, content, page, referrer_host, automated
FROM touches WHERE (lead_id, occurred_at, touch_id, origin) > ($3, $4, $5, $6) AND {WINDOW}
ORDER BY lead_id, occurred_at, touch_id, origin LIMIT $7
"""
CONVERSIONS = f"""
SELECT conversion_id, external_id, origin, coalesce(path.person_id, told.lead_id) AS lead_id,
    told.lead_id AS told_lead_id, told.type, coalesce(path.value_minor, told.value_minor) AS value_minor,
    coalesce(refunded.minor, 0) AS refunded_minor, told.currency, told.occurred_at, told.received_at, told.deal_id,
    cardinality(path.touch_ids) - 1 AS touches, path.country, path.account, path.rep
FROM (
    SELECT * FROM conversions WHERE conversion_id > $3 AND lead_id IS NOT NULL AND {WINDOW}
    ORDER BY conversion_id LIMIT $4
) AS told
LEFT JOIN paths AS path USING (conversion_id)
LEFT JOIN LATERAL (
    SELECT sum(refund.amount_minor)::bigint AS minor FROM refunds AS refund
    WHERE refund.conversion_id = told.conversion_id AND refund.currency = told.currency
) AS refunded ON true
ORDER BY conversion_id
"""
RUNS = "SELECT run FROM model_runs WHERE state = 'serving' AND ($1::text IS NULL OR model = $1)"
PATHS = f"SELECT conversion_id FROM paths WHERE conversion_id > $3 AND {WINDOW} ORDER BY conversion_id LIMIT $4"
CREDITS = """
SELECT path.conversion_id, path.person_id AS lead_id, runs.model, runs.version AS model_version,
    part.place - 1 AS place, part.touch_id, part.origin,
    CASE WHEN part.place > 1 THEN part.at END AS touch_occurred_at,
    combos.channel, combos.source, combos.medium, combos.campaign, combos.touch_type, part.units, part.value_minor,
    path.currency, path.conversion_type, path.occurred_at AS conversion_occurred_at, path.country, path.account,
    path.rep
FROM paths AS path JOIN credits USING (conversion_id) JOIN model_runs AS runs USING (run)
CROSS JOIN LATERAL unnest(
    path.touch_ids, path.origins, path.times, path.combos, credits.units, credits.value_minor
) WITH ORDINALITY AS part (touch_id, origin, at, combo_id, units, value_minor, place)
JOIN combos USING (combo_id)
WHERE path.conversion_id = ANY($1) AND credits.run = ANY($2) AND (part.units <> 0 OR part.value_minor <> 0)
ORDER BY path.conversion_id, runs.run, part.place
"""
TOUCHES_A_PAGE, CONVERSIONS_A_PAGE, CREDITED_A_PAGE = 5_000, 5_000, 200

BEGINNING = datetime(1, 1, 1, tzinfo=UTC).isoformat()

Place = list[str]
"""The last row of a page, as what it is ordered by."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an export holds: a kind of rows, of that time, `to_at` excluded; credits perhaps of one model."""

    kind: ExportKind
    model: str | None
    from_at: datetime | None
    to_at: datetime | None


@dataclass(frozen=True, slots=True)
class Export(Wanted):
    """An export, and how far it is written. `snapshots` is how often the writing began with another snapshot."""

    export_id: str
    format: Format
    state: State
    parts: int
    done: int
    total: int | None
    bytes: int
    after: Place | None
    snapshots: int
    failures: int
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it is stored; `leads` are those whose pages and contents are in it, in order."""

    rows: int
    done: int
    content: bytes
    etag: str
    read_at: datetime
    leads: Sequence[LeadId]
    first_lead: LeadId | None
    last_lead: LeadId | None


@dataclass(frozen=True, slots=True)
class RowsPage:
    """Rows of an export; `done` counts touches or conversions, as `total` does. Without a place it is the last one."""

    rows: list[dict[str, Any]]
    done: int
    place: Place | None


async def add_export(connection: Connection, export_id: str, wanted: Wanted, form: Format, subject: str) -> Export:
    """Queue an export."""
    row = await one(connection, ADD, export_id, wanted.kind, form, wanted.model, wanted.from_at, wanted.to_at, subject)
    return _export(row)


async def unfinished(connection: Connection) -> int:
    """How many exports wait or are being written."""
    number: int = await connection.fetchval(UNFINISHED)
    return number


async def export(connection: Connection, export_id: str) -> Export | None:
    """One export."""
    row = await connection.fetchrow(GET, export_id)
    return _export(row) if row else None


async def next_export(connection: Connection) -> Export | None:
    """The oldest export that is not written yet."""
    row = await connection.fetchrow(NEXT)
    return _export(row) if row else None


async def newest_exports(connection: Connection, after: tuple[datetime, str] | None, limit: int) -> list[Export]:
    """Exports, the newest first."""
    return [_export(row) for row in await connection.fetch(NEWEST, *(after or (None, None)), limit)]


async def drop_export(connection: Connection, export_id: str) -> bool:
    """Remove an export with its parts; answers whether there was one."""
    return await connection.fetchval(DROP, export_id) is not None


async def drop_old_exports(connection: Connection, days: int) -> None:
    """Remove exports that were finished so long ago."""
    await connection.execute(DROP_OLD, days)


async def begin_writing(connection: Connection, export_id: str, total: int) -> None:
    """The export is read from a new snapshot, in which it has so many touches or conversions."""
    await connection.execute(BEGIN, export_id, total)


async def give_up(connection: Connection, export_id: str) -> None:
    """The export cannot be written."""
    await connection.execute(FAIL, export_id)


async def add_part(connection: Connection, job: Export, part: Part, place: Place | None) -> bool:
    """Store the next part, and from where to go on; without a place the export is done.

    Answers False, and stores nothing, when another process did that, when the export was dropped, or when the part
    holds pages of somebody who was erased since it was read.
    """
    await connection.execute(TURN)
    if await connection.fetchval(ERASED_AMONG, part.leads):
        return False
    parts = 1 if part.rows or (place is None and not job.parts) else 0
    size = len(part.content) if parts else 0
    done = await connection.fetchval(
        ADVANCE, job.export_id, job.parts, parts, part.done, size, place or job.after, place is None
    )
    if done is not None and parts:
        await connection.execute(
            ADD_PART,
            job.export_id,
            job.parts + 1,
            part.rows,
            size,
            part.etag,
            part.read_at,
            part.first_lead,
            part.last_lead,
            part.content,
        )
    return done is not None


async def parts_of(connection: Connection, export_id: str, after: int, limit: int) -> list[asyncpg.Record]:
    """What is known of an export's parts, in order."""
    return await connection.fetch(PARTS, export_id, after, limit)


async def part_of(connection: Connection, export_id: str, number: int) -> tuple[str, bytes | None] | None:
    """The name and the content of a part's state; no content where it held what was erased since."""
    row = await connection.fetchrow(PART, export_id, number)
    return (row["etag"], row["content"]) if row else None


async def erase_parts(connection: Connection, lead_id: LeadId) -> None:
    """Remove the parts that may hold pages and contents of an erased id's touches."""
    await connection.execute(TURN)
    await connection.execute(ERASE_PARTS, lead_id)


async def note(connection: Connection, subject: str, action: str, wanted: Wanted, form: Format) -> None:
    """Put into the audit log who takes what out."""
    detail = {"format": form, "model": wanted.model, "from": wanted.from_at, "to": wanted.to_at}
    await connection.execute(AUDIT, subject, action, wanted.kind, detail)


async def prepare_snapshot(connection: Connection) -> int:
    """Make a transaction patient; answers which projection its snapshot is of."""
    await connection.execute(PATIENCE)
    return await projection_of(connection)


async def projection_of(connection: Connection) -> int:
    """Which projection serves, whatever snapshot is looked at."""
    oid: int = await connection.fetchval(PROJECTION)
    return oid


async def total_of(connection: Connection, wanted: Wanted) -> int:
    """How many touches or conversions an export has."""
    total: int = await connection.fetchval(TOTALS[wanted.kind], wanted.from_at, wanted.to_at)
    return total


async def rows_after(connection: Connection, wanted: Wanted, after: Place | None) -> RowsPage:
    """The next rows of an export."""
    window = wanted.from_at, wanted.to_at
    match wanted.kind:
        case "journeys":
            lead_id, at, touch_id, origin = after or ["", BEGINNING, "", ""]
            place = lead_id, datetime.fromisoformat(at), touch_id, origin
            found = await connection.fetch(TOUCHES, *window, *place, TOUCHES_A_PAGE)
            persons = await resolve_many(connection, [(row["told_lead_id"], row["occurred_at"]) for row in found])
            rows = [{"lead_id": person, **row} for person, row in zip(persons, found, strict=True)]
            last = found[-1] if len(found) == TOUCHES_A_PAGE else None
            return RowsPage(rows, len(rows), _place(last) if last else None)
        case "conversions":
            found = await connection.fetch(CONVERSIONS, *window, (after or [""])[0], CONVERSIONS_A_PAGE)
            more = len(found) == CONVERSIONS_A_PAGE
            return RowsPage([dict(row) for row in found], len(found), [found[-1]["conversion_id"]] if more else None)
        case "credits":
            paths = await connection.fetch(PATHS, *window, (after or [""])[0], CREDITED_A_PAGE)
            ids = [row["conversion_id"] for row in paths]
            runs = [row["run"] for row in await connection.fetch(RUNS, wanted.model)]
            found = await connection.fetch(CREDITS, ids, runs)
            rows = [{**row, "share": row["units"] / SHARE_UNITS} for row in found]
            return RowsPage(rows, len(ids), [ids[-1]] if len(ids) == CREDITED_A_PAGE else None)
        case _:
            assert_never(wanted.kind)


def _place(row: asyncpg.Record) -> Place:
    return [row["told_lead_id"], row["occurred_at"].isoformat(), row["touch_id"], row["origin"]]


def _export(row: asyncpg.Record) -> Export:
    return Export(**{name: row[name] for name in Export.__dataclass_fields__})
