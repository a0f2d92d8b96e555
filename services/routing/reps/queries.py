"""The statements about reps."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import asyncpg
import orjson

from services.routing.errors import EmailTaken
from services.routing.reps.calendar import Calendar
from services.routing.reps.domain import Rep
from services.routing.reps.inputs import calendar_of
from shared.db import Connection
from shared.errors import FieldError
from shared.ids import RepId

COLUMNS = """
rep_id, name, email, territories, skills, teams, seniority, weight, capacity, active, open_leads, last_assigned_at,
time_zone, working_hours::text, time_off::text
"""
INSERT = """
INSERT INTO reps (rep_id, name, email, territories, skills, teams, seniority, weight, capacity, time_zone,
    working_hours, time_off, active, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)
"""
CHANGE = """
UPDATE reps SET name = $2, email = $3, territories = $4, skills = $5, teams = $6, seniority = $7, weight = $8,
    capacity = $9, time_zone = $10, working_hours = $11, time_off = $12, active = $13, updated_at = $14
WHERE rep_id = $1
"""
ACTIVE = f"SELECT {COLUMNS} FROM reps WHERE active ORDER BY created_at, rep_id"
ONE = "SELECT * FROM reps WHERE rep_id = $1"
ONE_LOCKED = "SELECT * FROM reps WHERE rep_id = $1 FOR UPDATE"
LIST = """
SELECT * FROM reps
WHERE (created_at, rep_id) > ($1, $2) AND ($3::boolean IS NULL OR active = $3) AND ($4::text IS NULL OR email = $4)
ORDER BY created_at, rep_id LIMIT $5
"""
UNKNOWN = "SELECT id FROM unnest($1::text[]) AS id WHERE NOT EXISTS (SELECT 1 FROM reps WHERE rep_id = id)"
TEAMS = "SELECT teams FROM reps WHERE rep_id = $1"
FIELDS = (
    "name",
    "email",
    "territories",
    "skills",
    "teams",
    "seniority",
    "weight",
    "capacity",
    "time_zone",
    "working_hours",
    "time_off",
    "active",
)


async def active_reps(connection: Connection) -> tuple[Rep, ...]:
    """Everybody who may be given leads, in the order that breaks ties."""
    return tuple(_rep(row) for row in await connection.fetch(ACTIVE))


async def insert_rep(connection: Connection, rep_id: RepId, columns: Mapping[str, Any], at: datetime) -> None:
    """A new rep. Raises EmailTaken."""
    await _write(connection, INSERT, rep_id, columns, at)


async def change_rep(connection: Connection, rep_id: RepId, columns: Mapping[str, Any], at: datetime) -> None:
    """All fields of a rep anew. Raises EmailTaken."""
    await _write(connection, CHANGE, rep_id, columns, at)


async def rep_row(connection: Connection, rep_id: RepId, *, locked: bool = False) -> asyncpg.Record | None:
    """A rep as it is stored."""
    return await connection.fetchrow(ONE_LOCKED if locked else ONE, rep_id)


async def rep_rows(
    connection: Connection, after: tuple[datetime, str], active: bool | None, email: str | None, limit: int
) -> list[asyncpg.Record]:
    """Reps after a place in the list."""
    return await connection.fetch(LIST, *after, active, email, limit)


async def unknown_reps(connection: Connection, rep_ids: Sequence[RepId]) -> set[str]:
    """Those of the ids that are no rep's."""
    return {row["id"] for row in await connection.fetch(UNKNOWN, rep_ids)}


async def teams_of(connection: Connection, rep_id: RepId | None) -> tuple[str, ...]:
    """The teams that a rep is in."""
    return tuple(await connection.fetchval(TEAMS, rep_id) or ())


async def _write(
    connection: Connection, statement: str, rep_id: RepId, columns: Mapping[str, Any], at: datetime
) -> None:
    try:
        async with connection.transaction():
            await connection.execute(statement, rep_id, *(columns[name] for name in FIELDS), at)
    except asyncpg.UniqueViolationError as exc:
        detail = "another rep has this address"
        raise EmailTaken(detail, [FieldError("/email", detail)]) from exc


@lru_cache(maxsize=10_000)
def _calendar(time_zone: str, working_hours: str | None, time_off: str) -> Calendar:
    return calendar_of(time_zone, orjson.loads(working_hours) if working_hours else None, orjson.loads(time_off))


def _rep(row: asyncpg.Record) -> Rep:
    return Rep(
        rep_id=RepId(row["rep_id"]),
        name=row["name"],
        email=row["email"],
        calendar=_calendar(row["time_zone"], row["working_hours"], row["time_off"]),
        territories=tuple(row["territories"]),
        skills=tuple(row["skills"]),
        teams=tuple(row["teams"]),
        seniority=row["seniority"],
        weight=row["weight"],
        capacity=row["capacity"],
        active=row["active"],
        open_leads=row["open_leads"],
        last_assigned_at=row["last_assigned_at"],
    )
