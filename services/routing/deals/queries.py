"""The statements about deals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

import asyncpg

from services.routing.deals.domain import Deal
from services.routing.deals.inputs import Stakeholder
from services.routing.deals.lines import Line
from services.routing.deals.stages import Passed
from services.routing.deals.story import Change, Entry
from shared.db import Connection
from shared.ids import DealId, LeadId, RepId

MEASURED_OF = 1_000
COLUMNS = ", ".join(column.name for column in fields(Deal))
EXCLUDED = ", ".join(f"excluded.{column.name}" for column in fields(Deal))
PLACES = ", ".join(f"${index}" for index in range(1, len(fields(Deal)) + 1))
INSERT = f"""
INSERT INTO deals ({COLUMNS}, opened_with) VALUES ({PLACES}, ${len(fields(Deal)) + 1})
ON CONFLICT (deal_id) DO NOTHING RETURNING deal_id
"""
PUT = f"""
INSERT INTO deals AS known ({COLUMNS}) VALUES ({PLACES})
ON CONFLICT (deal_id) DO UPDATE SET ({COLUMNS}) = ROW ({EXCLUDED})
WHERE known.revision < excluded.revision
"""
UPDATE = f"""
UPDATE deals SET ({COLUMNS}, rot_told_at) = ROW ({PLACES}, NULL::timestamptz) WHERE deal_id = $1
"""
NUMBER = "UPDATE deals SET revision = $2 WHERE deal_id = $1"
ONE = f"SELECT {COLUMNS} FROM deals WHERE deal_id = $1"
LOCK_ONE = f"{ONE} FOR UPDATE"
OPENED_WITH = "SELECT opened_with FROM deals WHERE deal_id = $1"
FORGET_TEXTS = """
UPDATE deals SET name = '', reason = NULL, notes = '{}', remarks = '{}', sealed = NULL, opened_with = NULL
WHERE lead_id = $1
"""
# An erased person has no part in anybody's deal any more.
FORGET_STAKEHOLDER = """
UPDATE deals SET stakeholders = coalesce(
    (SELECT jsonb_agg(one) FROM jsonb_array_elements(stakeholders) AS one WHERE one->>'lead_id' <> $1), '[]')
WHERE stakeholders <> '[]' AND stakeholders @> jsonb_build_array(jsonb_build_object('lead_id', $1::text))
"""
FORGET_TOLD_STAKEHOLDER = """
UPDATE deal_history SET told = jsonb_set(told, '{stakeholders}', coalesce(
    (SELECT jsonb_agg(one) FROM jsonb_array_elements(told->'stakeholders') AS one WHERE one->>'lead_id' <> $1), '[]'))
WHERE deal_id = ANY($2) AND told ? 'stakeholders'
"""
HAS_STAKEHOLDER = """
SELECT deal_id FROM deals
WHERE stakeholders <> '[]' AND stakeholders @> jsonb_build_array(jsonb_build_object('lead_id', $1::text))
"""
REVISIONS = "SELECT deal_id, revision FROM deals WHERE deal_id = ANY($1)"
ADD_HISTORY = """
INSERT INTO deal_history (deal_id, revision, at, status, stage, probability, value_minor, told, by_whom)
SELECT $1, told.number, told.at, $2, $3, $4, $5, told.change, told.by_whom
FROM unnest($6::integer[], $7::timestamptz[], $8::jsonb[], $9::text[]) AS told (number, at, change, by_whom)
ON CONFLICT DO NOTHING
"""
DROP_HISTORY = "DELETE FROM deal_history WHERE deal_id = $1 AND revision < $2"
HISTORY = """
SELECT revision, at, status, stage, probability, value_minor, told, by_whom FROM deal_history
WHERE deal_id = $1 ORDER BY revision
"""
LIST = f"""
SELECT {COLUMNS} FROM deals
WHERE (opened_at, deal_id) < ($1, $2)
    AND ($3::text[] IS NULL OR lead_id = ANY($3)) AND ($4::text IS NULL OR rep_id = $4)
    AND ($5::text IS NULL OR stage = $5) AND ($6::text IS NULL OR external_id = $6)
    AND ($7::text IS NULL OR status = $7) AND ($8::text IS NULL OR pipeline_id = $8)
    AND ($9::date IS NULL OR coalesce((closed_at AT TIME ZONE $13)::date, expected_close_on) >= $9)
    AND ($10::date IS NULL OR coalesce((closed_at AT TIME ZONE $13)::date, expected_close_on) < $10)
    AND ($11::jsonb IS NULL OR (status = 'open') AND changed_at <= (
        SELECT coalesce(max(bound.silent_since) FILTER (WHERE bound.stage = deals.stage),
            max(bound.silent_since) FILTER (WHERE bound.stage IS NULL))
        FROM jsonb_to_recordset($11) AS bound (pipeline_id text, stage text, silent_since timestamptz)
        WHERE bound.pipeline_id = deals.pipeline_id))
ORDER BY opened_at DESC, deal_id DESC LIMIT $12
"""
# Of the newest that ended, so that it takes no longer the more there are.
MEASURED = """
SELECT stage, count(*) AS closed, count(*) FILTER (WHERE status = 'won') AS won FROM (
    SELECT status, passed FROM deals WHERE pipeline_id = $1 AND status <> 'open' ORDER BY closed_at DESC LIMIT $2
) AS ended, unnest(passed) AS stage GROUP BY stage
"""
OPEN_BY_STAGE = """
SELECT stage, currency, probability, count(*) AS deals, sum(value_minor) AS value_minor FROM deals
WHERE status = 'open' AND pipeline_id = $1 AND changed_at >= $2
GROUP BY stage, currency, probability ORDER BY stage, currency, probability
"""
# The bound of the deal's stage, or where the document has no such stage any more, of its pipeline.
ROTTING = """
SELECT deals.deal_id, deals.lead_id, deals.revision, deals.pipeline_id, deals.stage, deals.rep_id, deals.changed_at
FROM deals
LEFT JOIN jsonb_to_recordset($1) AS own (pipeline_id text, stage text, silent_since timestamptz)
    ON own.pipeline_id = deals.pipeline_id AND own.stage = deals.stage
LEFT JOIN jsonb_to_recordset($1) AS other (pipeline_id text, stage text, silent_since timestamptz)
    ON other.pipeline_id = deals.pipeline_id AND other.stage IS NULL
WHERE status = 'open' AND rot_told_at IS NULL AND changed_at <= $2
    AND changed_at <= coalesce(own.silent_since, other.silent_since)
ORDER BY changed_at LIMIT $3 FOR UPDATE OF deals SKIP LOCKED
"""
ROT_TOLD = "UPDATE deals SET rot_told_at = $2 WHERE deal_id = ANY($1)"
ROT_TOLD_BEFORE = """
UPDATE deals SET rot_told_at = $3 WHERE deal_id = $1 AND changed_at = $2 AND rot_told_at IS NULL
"""
# A renewal that was lost before the deal was won again is of a contract that is over; so is one that was lost since
# there was no contract ($5 tells who says so), whatever time the win has that was told then.
RENEWABLE = f"""
SELECT {COLUMNS} FROM deals
WHERE status = 'won' AND pipeline_id = $1 AND contract_ends_on BETWEEN $2 AND $3
    AND NOT EXISTS (
        SELECT 1 FROM deals AS renewal WHERE renewal.renewal_of = deals.deal_id
            AND NOT (renewal.status = 'lost' AND (renewal.closed_at <= deals.closed_at OR $5 = (
                SELECT by_whom FROM deal_history AS loss WHERE loss.deal_id = renewal.deal_id AND told ? 'lost'
                ORDER BY revision DESC LIMIT 1)))
    )
    AND NOT EXISTS (SELECT 1 FROM identity_erased AS gone WHERE gone.lead_id = deals.lead_id)
ORDER BY contract_ends_on, deal_id LIMIT $4 FOR UPDATE SKIP LOCKED
"""
RENEWALS = "SELECT count(*) FROM deals WHERE renewal_of = $1"
OPEN_RENEWALS = f"""
SELECT {COLUMNS} FROM deals WHERE renewal_of = $1 AND status = 'open' ORDER BY deal_id FOR UPDATE
"""
# Won deals count by the local day they were closed, open ones by the day they are expected to close.
IN_PERIOD = """
SELECT deals.status, deals.pipeline_id, deals.stage, deals.probability, deals.value_minor, deals.currency,
    deals.rep_id, reps.teams, coalesce((closed_at AT TIME ZONE $7)::date, expected_close_on) AS day,
    status = 'open' AND coalesce(expected_close_on < $1, false) AS overdue
FROM deals LEFT JOIN reps USING (rep_id)
WHERE ($4::text IS NULL OR pipeline_id = $4) AND ($5::text IS NULL OR rep_id = $5) AND (
    status = 'open' AND (
        expected_close_on >= $1 AND expected_close_on < $2 OR expected_close_on IS NULL
        OR expected_close_on < least($1, $3::date))
    OR status = 'won'
        AND closed_at >= $1::timestamp AT TIME ZONE $7 AND closed_at < $2::timestamp AT TIME ZONE $7)
LIMIT $6
"""
OWNER = """
SELECT rep_id FROM assignments WHERE lead_id = ANY($1) AND (state = 'accepted' OR ended_at IS NULL)
ORDER BY (ended_at IS NULL) DESC, assigned_at DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of deals is narrowed to. `closing_to` is excluded; both are days of `zone`.

    `silent` are the bounds after which deals rot.
    """

    lead_ids: Sequence[LeadId] | None = None
    rep_id: str | None = None
    stage: str | None = None
    external_id: str | None = None
    status: str | None = None
    pipeline_id: str | None = None
    closing_from: date | None = None
    closing_to: date | None = None
    zone: str = "UTC"
    silent: Sequence[Mapping[str, Any]] | None = None


async def insert_deal(connection: Connection, deal: Deal, opened_with: dict[str, Any] | None) -> bool:
    """A new deal; False when there is one with this id already."""
    return await connection.fetchval(INSERT, *_row(deal), opened_with) is not None


async def update_deal(connection: Connection, deal: Deal) -> None:
    """A deal after a change; its row is locked."""
    await connection.execute(UPDATE, *_row(deal))


async def number_deal(connection: Connection, deal_id: DealId, revision: int) -> None:
    """Count what was told of a deal though it stands as it did; its row is locked."""
    await connection.execute(NUMBER, deal_id, revision)


async def put_deal(connection: Connection, deal: Deal) -> None:
    """A deal as it was told once, unless a newer change of it is known."""
    await connection.execute(PUT, *_row(deal))


async def add_history(connection: Connection, deal: Deal, entries: Sequence[Entry]) -> None:
    """Keep what was told of a deal that stands so now."""
    await connection.execute(
        ADD_HISTORY,
        deal.deal_id,
        deal.status,
        deal.stage,
        deal.probability,
        deal.value_minor,
        [entry.number for entry in entries],
        [entry.at for entry in entries],
        [entry.change.as_json() for entry in entries],
        [entry.by for entry in entries],
    )


async def drop_history(connection: Connection, deal_id: DealId, before: int) -> None:
    """Forget what was told before a revision: from there on the deal was told anew."""
    await connection.execute(DROP_HISTORY, deal_id, before)


async def deal_by_id(connection: Connection, deal_id: DealId, *, locked: bool = False) -> Deal | None:
    """A deal."""
    row = await connection.fetchrow(LOCK_ONE if locked else ONE, deal_id)
    return None if row is None else deal_of(row)


def deal_of(row: asyncpg.Record | Mapping[str, Any]) -> Deal:
    """A row of the columns of deals."""
    columns = dict(row)
    columns["lines"] = tuple(Line.model_validate(line) for line in columns["lines"])
    columns["stakeholders"] = tuple(Stakeholder.model_validate(one) for one in columns["stakeholders"])
    columns["passed"] = tuple(columns["passed"])
    return Deal(**columns)


def _row(deal: Deal) -> list[Any]:
    columns = {column.name: getattr(deal, column.name) for column in fields(Deal)}
    columns["lines"] = [line.model_dump(exclude_none=True) for line in deal.lines]
    columns["stakeholders"] = [one.model_dump() for one in deal.stakeholders]
    columns["notes"], columns["remarks"] = dict(deal.notes), dict(deal.remarks)
    return list(columns.values())


async def opened_with(connection: Connection, deal_id: DealId) -> dict[str, Any] | None:
    """What the deal was opened with, if that is known."""
    told: dict[str, Any] | None = await connection.fetchval(OPENED_WITH, deal_id)
    return told


async def forget_texts(connection: Connection, lead_id: LeadId) -> None:
    """Forget what was written about deals with an erased person, and their part in deals; figures stay."""
    await connection.execute(FORGET_TEXTS, lead_id)
    taking_part = [row["deal_id"] for row in await connection.fetch(HAS_STAKEHOLDER, lead_id)]
    if taking_part:
        await connection.execute(FORGET_STAKEHOLDER, lead_id)
        await connection.execute(FORGET_TOLD_STAKEHOLDER, lead_id, taking_part)


async def known_revisions(connection: Connection, deal_ids: Sequence[DealId]) -> dict[DealId, int]:
    """The newest revision of each deal that is known."""
    return {row["deal_id"]: row["revision"] for row in await connection.fetch(REVISIONS, deal_ids)}


async def entries(connection: Connection, deal: Deal) -> list[Entry]:
    """All that was told of a deal. Of what an earlier version stored the change is the difference that it made."""
    found: list[Entry] = []
    before: asyncpg.Record | None = None
    for row in await connection.fetch(HISTORY, deal.deal_id):
        if row["told"] is not None:
            change, at = Change.model_validate(row["told"]), row["at"]
        else:
            change, at = _difference(before, row), row["at"]
            if (change.won or change.lost) and deal.status == row["status"] and deal.closed_at is not None:
                at = deal.closed_at
        found.append(Entry(row["revision"], at, change, row["by_whom"]))
        before = row
    return found


def _difference(before: asyncpg.Record | None, row: asyncpg.Record) -> Change:
    sets: dict[str, Any] = {}
    if before is None or before["value_minor"] != row["value_minor"]:
        sets["value_minor"] = row["value_minor"]
    if row["status"] == "open" and (before is None or before["stage"] != row["stage"]):
        sets |= {"stage": row["stage"], "probability": row["probability"]}
    if row["status"] != "open" and (before is None or before["status"] != row["status"]):
        sets[row["status"]] = True
    return Change(**sets)


async def deals_of(connection: Connection, before: tuple[datetime, str], filters: Filters, limit: int) -> list[Deal]:
    """Deals before a place in the list, the newest first."""
    rows = await connection.fetch(
        LIST,
        *before,
        filters.lead_ids,
        filters.rep_id,
        filters.stage,
        filters.external_id,
        filters.status,
        filters.pipeline_id,
        filters.closing_from,
        filters.closing_to,
        filters.silent,
        limit,
        filters.zone,
    )
    return [deal_of(row) for row in rows]


async def measured(connection: Connection, pipeline_id: str) -> dict[str, Passed]:
    """What became of the deals of a pipeline that passed each stage, of the newest that ended."""
    rows = await connection.fetch(MEASURED, pipeline_id, MEASURED_OF)
    return {row["stage"]: Passed(row["won"], row["closed"]) for row in rows}


async def owner_of(connection: Connection, lead_ids: Sequence[LeadId]) -> RepId | None:
    """The rep who has, or had last, the person with these ids."""
    owner: RepId | None = await connection.fetchval(OWNER, lead_ids)
    return owner


async def open_by_stage(connection: Connection, pipeline_id: str, since: datetime) -> list[asyncpg.Record]:
    """Number and value of the open deals of a pipeline that changed since then, by stage."""
    return await connection.fetch(OPEN_BY_STAGE, pipeline_id, since)


async def take_rotted(
    connection: Connection, silent: Sequence[Mapping[str, Any]], latest: datetime, now: datetime, limit: int
) -> list[asyncpg.Record]:
    """Open deals that changed last before the bounds of their stages, and of which that is told by now."""
    rows = await connection.fetch(ROTTING, silent, latest, limit)
    await connection.execute(ROT_TOLD, [row["deal_id"] for row in rows], now)
    return rows


async def rot_was_told(connection: Connection, deal_id: DealId, since: datetime, at: datetime) -> None:
    """That a deal has been silent since then was told."""
    await connection.execute(ROT_TOLD_BEFORE, deal_id, since, at)


async def renewable(
    connection: Connection, pipeline_id: str, ends: tuple[date, date], limit: int, by: str
) -> list[Deal]:
    """Won deals whose contract ends within these days, both included, that nobody renews yet; locked.

    `by` is who loses renewals of deals that are not won any more.
    """
    return [deal_of(row) for row in await connection.fetch(RENEWABLE, pipeline_id, *ends, limit, by)]


async def renewals(connection: Connection, deal_id: DealId) -> int:
    """How many deals were opened to renew a deal."""
    found: int = await connection.fetchval(RENEWALS, deal_id)
    return found


async def open_renewals(connection: Connection, deal: Deal) -> list[Deal]:
    """The open deals that are to renew a deal; locked."""
    return [deal_of(row) for row in await connection.fetch(OPEN_RENEWALS, deal.deal_id)]


async def closing_in(  # noqa: PLR0913  # what a forecast is asked by
    connection: Connection,
    period: tuple[date, date],
    today: date,
    pipeline_id: str | None,
    rep_id: str | None,
    limit: int,
    zone: str,
) -> list[asyncpg.Record]:
    """Won deals closed in a period of that time zone, open ones expected in it, earlier on a past day, or on no day."""
    return await connection.fetch(IN_PERIOD, *period, today, pipeline_id, rep_id, limit, zone)
