"""Runs of sequences, and facts that may still start one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.nurture.enrolments.domain import KEPT_FOR, Fact, Run
from services.nurture.permission.domain import QUIET
from shared.db import Connection
from shared.ids import EventId, LeadId, SequenceId

RUN = """enrolment_id, sequence_id, version, lead_id, run, active, triggered_at, started_at, step_id, visits, waits_at,
    waiting_since, met, variants"""
RUNS_OF = f"SELECT {RUN} FROM enrolments WHERE lead_id = ANY($1)"
START = """
INSERT INTO enrolments
    (enrolment_id, sequence_id, version, lead_id, run, cause_event_id, triggered_at, step_id, started_at, met, due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp())
ON CONFLICT DO NOTHING RETURNING enrolment_id
"""
CAUSED = "SELECT EXISTS (SELECT FROM enrolments WHERE sequence_id = $1 AND cause_event_id = $2)"
END_RUNS = """
UPDATE enrolments AS run SET active = false, reason = given.reason, claim = NULL,
    ended_at = coalesce($3::timestamptz, clock_timestamp())
FROM unnest($1::text[], $2::text[]) AS given (enrolment_id, reason)
WHERE run.enrolment_id = given.enrolment_id AND run.active RETURNING run.enrolment_id, run.ended_at
"""
ENDED_AS = f"""
SELECT {RUN} FROM enrolments WHERE lead_id = ANY($1) AND NOT active AND reason = $2
ORDER BY started_at DESC, enrolment_id
"""
REVIVE = """
UPDATE enrolments SET active = true, reason = NULL, ended_at = NULL, hold = NULL
WHERE enrolment_id = $1 AND NOT active AND reason = $2 RETURNING enrolment_id
"""
RESTORE = """
INSERT INTO enrolments
    (enrolment_id, sequence_id, version, lead_id, run, cause_event_id, triggered_at, step_id, started_at, due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
ON CONFLICT DO NOTHING
"""
NOTE_MET = """
UPDATE enrolments SET met = met || $2, due_at = CASE WHEN $3 THEN clock_timestamp() ELSE due_at END
WHERE enrolment_id = $1 AND active
"""
# Whoever waits for a moment stands before the wait itself. Where a lead is may change with what is known of them.
ANY_WAITING = """
SELECT EXISTS (SELECT FROM enrolments WHERE active AND waits_at = step_id)
    OR EXISTS (SELECT FROM enrolments WHERE lead_id = ANY($1) AND active AND starts_with(hold, $2))
"""
LOOK_AGAIN = """
UPDATE enrolments SET due_at = clock_timestamp()
WHERE lead_id = ANY($1) AND active AND (waits_at = step_id OR (claim IS NULL AND starts_with(hold, $2)))
"""
LISTED = f"""
SELECT {RUN}, reason, ended_at, due_at, hold FROM enrolments
WHERE lead_id = ANY($1) ORDER BY started_at DESC, enrolment_id
"""
KEEP_PENDING = """
INSERT INTO pending_triggers AS known
    (sequence_id, lead_id, event_id, occurred_at, received_at, fields, sealed, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8)
ON CONFLICT (sequence_id, lead_id) DO UPDATE
SET event_id = excluded.event_id, occurred_at = excluded.occurred_at, received_at = excluded.received_at,
    fields = excluded.fields, sealed = excluded.sealed, expires_at = excluded.expires_at
WHERE (known.occurred_at, known.event_id) < (excluded.occurred_at, excluded.event_id)
"""
PENDING = """
SELECT sequence_id, lead_id, event_id, occurred_at, received_at, fields, sealed FROM pending_triggers
WHERE lead_id = ANY($1) AND expires_at > clock_timestamp() ORDER BY occurred_at, event_id
"""
ANY_PENDING = "SELECT EXISTS (SELECT FROM pending_triggers WHERE expires_at > clock_timestamp())"
DROP_PENDING = "DELETE FROM pending_triggers WHERE sequence_id = $1 AND event_id = $2"
DROP_PENDING_OF = "DELETE FROM pending_triggers WHERE lead_id = ANY($1)"
DROP_EXPIRED = """
DELETE FROM pending_triggers WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM pending_triggers WHERE expires_at <= clock_timestamp() LIMIT 10000
))
"""


async def runs_of(connection: Connection, lead_ids: Sequence[LeadId]) -> list[Run]:
    """All runs of a person, given all their ids."""
    return [as_run(row) for row in await connection.fetch(RUNS_OF, lead_ids)]


async def save_run(connection: Connection, run: Run, cause: EventId, first_step: str) -> bool:
    """Begin a run; False when there is one like it already."""
    saved = await connection.fetchval(
        START,
        run.enrolment_id,
        run.sequence_id,
        run.version,
        run.lead_id,
        run.run,
        cause,
        run.triggered_at,
        first_step,
        run.started_at,
        {step_id: at.isoformat() for step_id, at in run.met.items()},
    )
    return saved is not None


async def note_met(connection: Connection, enrolment_id: str, met: Mapping[str, datetime], *, wakes: bool) -> None:
    """Note that what steps wait for has happened; `wakes` makes the run due at once."""
    written = {step_id: at.isoformat() for step_id, at in met.items()}
    await connection.execute(NOTE_MET, enrolment_id, written, wakes)


async def any_waiting(connection: Connection, lead_ids: Sequence[LeadId]) -> bool:
    """Whether any run waits for a moment, or one of these ids for the hours of where they are."""
    return bool(await connection.fetchval(ANY_WAITING, lead_ids, QUIET))


async def look_again(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Let the runs of these ids that wait for a moment, or for their hours, look whether it has come."""
    await connection.execute(LOOK_AGAIN, lead_ids, QUIET)


async def was_caused(connection: Connection, sequence_id: SequenceId, cause: EventId) -> bool:
    """Whether this fact started a run of the sequence already."""
    return bool(await connection.fetchval(CAUSED, sequence_id, cause))


async def end_runs(
    connection: Connection, reasons: Mapping[str, str], at: datetime | None = None
) -> dict[str, datetime]:
    """End runs, each for a reason, now if not then; answers those that had not ended, with when they do."""
    ordered = sorted(reasons)
    rows = await connection.fetch(END_RUNS, ordered, [reasons[this] for this in ordered], at)
    return {row["enrolment_id"]: row["ended_at"] for row in rows}


async def runs_ended_as(connection: Connection, lead_ids: Sequence[LeadId], reason: str) -> list[Run]:
    """A person's runs that ended for this reason, the last begun first."""
    return [as_run(row) for row in await connection.fetch(ENDED_AS, lead_ids, reason)]


async def revive_run(connection: Connection, enrolment_id: str, reason: str) -> bool:
    """Let a run that ended for this reason go on; False when it does already."""
    return await connection.fetchval(REVIVE, enrolment_id, reason) is not None


async def restore_run(connection: Connection, run: Run, cause: EventId, step_id: str) -> None:
    """Put back a run that was told but is not here: the database is an earlier copy."""
    await connection.execute(
        RESTORE,
        run.enrolment_id,
        run.sequence_id,
        run.version,
        run.lead_id,
        run.run,
        cause,
        run.triggered_at,
        step_id,
        run.started_at,
    )


async def listed_runs(connection: Connection, lead_ids: Sequence[LeadId]) -> list[asyncpg.Record]:
    """A person's runs with where they stand, the newest first."""
    rows: list[asyncpg.Record] = await connection.fetch(LISTED, lead_ids)
    return rows


async def keep_pending(connection: Connection, sequence_id: SequenceId, fact: Fact) -> None:
    """Remember the latest fact of an id that would start a sequence if more were known of the person."""
    await connection.execute(
        KEEP_PENDING,
        sequence_id,
        fact.lead_id,
        fact.event_id,
        fact.occurred_at,
        fact.received_at,
        {name: value for name, value in fact.fields.items() if name != "properties"},  # they are in the block
        fact.sealed,
        KEPT_FOR,
    )


async def pending_facts(connection: Connection, lead_ids: Sequence[LeadId]) -> list[tuple[SequenceId, Fact]]:
    """What may still start a sequence for a person, given all their ids."""
    return [(SequenceId(row["sequence_id"]), _fact(row)) for row in await connection.fetch(PENDING, lead_ids)]


async def any_pending(connection: Connection) -> bool:
    """Whether any fact waits for more to be known of its person."""
    return bool(await connection.fetchval(ANY_PENDING))


async def drop_pending(connection: Connection, sequence_id: SequenceId, event_id: EventId) -> None:
    """This fact has been decided."""
    await connection.execute(DROP_PENDING, sequence_id, event_id)


async def drop_pending_of(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Forget what may have started something for these ids."""
    await connection.execute(DROP_PENDING_OF, lead_ids)


async def drop_expired(connection: Connection) -> None:
    """Forget facts whose hour is over."""
    await connection.execute(DROP_EXPIRED)


def as_run(row: asyncpg.Record) -> Run:
    """A row of the columns in RUN."""
    return Run(
        enrolment_id=row["enrolment_id"],
        sequence_id=SequenceId(row["sequence_id"]),
        version=row["version"],
        lead_id=LeadId(row["lead_id"]),
        run=row["run"],
        active=row["active"],
        triggered_at=row["triggered_at"],
        started_at=row["started_at"],
        step_id=row["step_id"],
        visits=row["visits"],
        waits_at=row["waits_at"],
        waiting_since=row["waiting_since"],
        met={step_id: datetime.fromisoformat(at) for step_id, at in row["met"].items()},
        variants=row["variants"],
    )


def _fact(row: asyncpg.Record) -> Fact:
    fields: dict[str, Any] = row["fields"]
    return Fact(
        event_id=EventId(row["event_id"]),
        lead_id=LeadId(row["lead_id"]),
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        fields=fields,
        sealed=row["sealed"],
    )
