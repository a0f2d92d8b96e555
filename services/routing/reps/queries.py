"""The statements about reps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg

from services.routing.errors import EmailTaken
from services.routing.reps.calendar import Period
from services.routing.reps.domain import Cap, Rep
from services.routing.reps.schedules import KnownCalendars, Schedule, Stored, schedule_of
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.ids import RepId

CALENDARS = KnownCalendars()
CAPS: tuple[tuple[Period, str], ...] = (
    ("day", "daily_capacity"),
    ("week", "weekly_capacity"),
    ("month", "monthly_capacity"),
)

COLUMNS = """
rep_id, name, email, territories, skills, teams, seniority, weight, capacity, daily_capacity, weekly_capacity,
monthly_capacity, active, open_leads, last_assigned_at, time_zone, working_hours::text, time_off::text, holidays::text,
busy_digest, (SELECT digest FROM company_days) AS company_digest
"""
INSERT = """
INSERT INTO reps (rep_id, name, email, territories, skills, teams, seniority, weight, capacity, daily_capacity,
    weekly_capacity, monthly_capacity, time_zone, working_hours, holidays, time_off, active, manager_id, created_at,
    updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19)
"""
CHANGE = """
UPDATE reps SET name = $2, email = $3, territories = $4, skills = $5, teams = $6, seniority = $7, weight = $8,
    capacity = $9, daily_capacity = $10, weekly_capacity = $11, monthly_capacity = $12, time_zone = $13,
    working_hours = $14, holidays = $15, time_off = $16, active = $17, manager_id = $18, updated_at = $19,
    left_at = CASE WHEN $17 THEN NULL WHEN active THEN $19 ELSE left_at END,
    left_because = CASE WHEN $17 THEN NULL ELSE left_because END
WHERE rep_id = $1
"""
ACTIVE = f"SELECT {COLUMNS} FROM reps WHERE active ORDER BY created_at, rep_id"
MANY = f"SELECT {COLUMNS} FROM reps WHERE rep_id = ANY($1) ORDER BY created_at, rep_id"
BUSY = "SELECT busy_digest, busy FROM rep_calendars WHERE busy_digest = ANY($1)"
COMPANY = "SELECT digest, days FROM company_days"
# Of the day in which a period begins, the leads are looked at one by one; of those after it, their number is kept.
GIVEN = """
SELECT asked.rep_id, asked.period, (
    SELECT coalesce(sum(leads), 0) FROM given_days
    WHERE given_days.rep_id = asked.rep_id AND day > (asked.since AT TIME ZONE 'UTC')::date
) + (
    SELECT count(*) FROM assignments AS given
    WHERE given.rep_id = asked.rep_id AND given.assigned_at >= asked.since
        AND given.assigned_at < date_trunc('day', asked.since, 'UTC') + interval '1 day'
        AND counts_as_given(given.state, given.end_reason)
) AS leads
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS asked (rep_id, period, since)
"""
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
    "daily_capacity",
    "weekly_capacity",
    "monthly_capacity",
    "time_zone",
    "working_hours",
    "holidays",
    "time_off",
    "active",
    "manager_id",
)


async def active_reps(connection: Connection, at: datetime | None = None) -> tuple[Rep, ...]:
    """Everybody who may be given leads, in the order that breaks ties; with how many they were given until `at`."""
    reps = await _reps(connection, await connection.fetch(ACTIVE))
    return reps if at is None else await _counted(connection, reps, at)


async def ready_calendars(connection: Connection) -> None:
    """Make the calendars of all reps, where this process has none yet: nobody should wait for that under a lock."""
    if CALENDARS.none:
        await active_reps(connection)


async def reps_of(connection: Connection, rep_ids: Sequence[RepId], at: datetime | None = None) -> dict[RepId, Rep]:
    """These reps, active or not; with how many leads they were given until `at`."""
    reps = await _reps(connection, await connection.fetch(MANY, rep_ids))
    return {rep.rep_id: rep for rep in (reps if at is None else await _counted(connection, reps, at))}


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
    manager_id = columns["manager_id"]
    if manager_id is not None and (manager_id == rep_id or await unknown_reps(connection, [manager_id])):
        raise Invalid("look at /manager_id", [FieldError("/manager_id", "is not the id of another rep")])
    try:
        async with connection.transaction():
            await connection.execute(statement, rep_id, *(columns[name] for name in FIELDS), at)
    except asyncpg.UniqueViolationError as exc:
        detail = "another rep has this address"
        raise EmailTaken(detail, [FieldError("/email", detail)]) from exc


async def _reps(connection: Connection, rows: Sequence[asyncpg.Record]) -> tuple[Rep, ...]:
    stored = [
        Stored(
            row["time_zone"],
            row["working_hours"],
            row["time_off"],
            row["holidays"],
            row["company_digest"],
            row["busy_digest"],
        )
        for row in rows
    ]
    schedules = {one: schedule for one in stored if (schedule := CALENDARS.get(one)) is not None}
    schedules |= await _made(connection, {one for one in stored if one not in schedules})
    return tuple(_rep(row, schedules[one]) for row, one in zip(rows, stored, strict=True))


async def _made(connection: Connection, wanted: set[Stored]) -> dict[Stored, Schedule]:
    """Calendars that are not known yet; kept, unless what they are made of was changed meanwhile."""
    if not wanted:
        return {}
    company = await connection.fetchrow(COMPANY)
    digests = sorted({one.busy_digest for one in wanted if one.busy_digest is not None})
    busy = {row["busy_digest"]: row["busy"] for row in await connection.fetch(BUSY, digests)} if digests else {}
    made = {}
    for one in wanted:
        days = company["days"] if company is not None else ()
        made[one] = schedule_of(one, days, busy.get(one.busy_digest))
        is_as_read = one.company_digest == (company and company["digest"])
        if is_as_read and (one.busy_digest is None or one.busy_digest in busy):
            CALENDARS.keep(made[one])
    return made


async def _counted(connection: Connection, reps: Sequence[Rep], at: datetime) -> tuple[Rep, ...]:
    asked = [(rep.rep_id, of, rep.calendar.period(at, of), most) for rep in reps for of, most in rep.most.items()]
    if not asked:
        return tuple(reps)
    rows = await connection.fetch(
        GIVEN,
        [rep_id for rep_id, _, _, _ in asked],
        [of for _, of, _, _ in asked],
        [span.start for _, _, span, _ in asked],
    )
    given = {(row["rep_id"], row["period"]): row["leads"] for row in rows}
    caps: dict[RepId, list[Cap]] = {}
    for rep_id, of, span, most in asked:
        caps.setdefault(rep_id, []).append(Cap(of, most, given[rep_id, of], span))
    return tuple(replace(rep, caps=tuple(caps.get(rep.rep_id, ()))) for rep in reps)


def _rep(row: asyncpg.Record, schedule: Schedule) -> Rep:
    return Rep(
        rep_id=RepId(row["rep_id"]),
        name=row["name"],
        email=row["email"],
        calendar=schedule.calendar,
        schedule=schedule,
        territories=tuple(row["territories"]),
        skills=tuple(row["skills"]),
        teams=tuple(row["teams"]),
        seniority=row["seniority"],
        weight=row["weight"],
        capacity=row["capacity"],
        most={of: row[name] for of, name in CAPS if row[name] is not None},
        active=row["active"],
        open_leads=row["open_leads"],
        last_assigned_at=row["last_assigned_at"],
    )
