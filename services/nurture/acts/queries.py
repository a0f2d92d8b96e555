"""The ledger of what steps did beside sending messages."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from services.nurture.acts.domain import Kind
from services.nurture.enrolments.domain import Run
from shared.db import Connection
from shared.events import StepPerformed
from shared.ids import EventId, LeadId

# A person who was merged meanwhile may have had this visit of this step under another id.
NOTE = """
INSERT INTO acts (act_id, enrolment_id, sequence_id, version, run, step_id, visit, lead_id, person_id, kind, at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp()
WHERE NOT EXISTS (
    SELECT FROM acts WHERE sequence_id = $3 AND run = $5 AND step_id = $6 AND visit = $7
      AND (lead_id = ANY($11) OR person_id = ANY($11))
)
ON CONFLICT DO NOTHING RETURNING at
"""
RESTORE = """
INSERT INTO acts
    (act_id, enrolment_id, sequence_id, version, run, step_id, visit, lead_id, person_id, kind, at, came_to)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING
"""
SAY = "UPDATE acts SET came_to = $2 WHERE act_id = $1"
DUE_AT_ONCE = "UPDATE enrolments SET due_at = clock_timestamp(), claim = NULL WHERE enrolment_id = $1 AND active"
LISTED = """
SELECT act_id, enrolment_id, sequence_id, version, run, step_id, visit, kind, at, came_to FROM acts
WHERE (lead_id = ANY($1) OR person_id = ANY($1)) AND (at, act_id) < ($2, $3)
ORDER BY at DESC, act_id DESC LIMIT $4
"""


async def note(  # noqa: PLR0913  # the key of the ledger
    connection: Connection,
    act_id: EventId,
    run: Run,
    step_id: str,
    visit: int,
    person_id: LeadId,
    ids: Sequence[LeadId],
    kind: Kind,
) -> datetime | None:
    """Enter an act; answers when, and None when the person had it already."""
    at: datetime | None = await connection.fetchval(
        NOTE,
        act_id,
        run.enrolment_id,
        run.sequence_id,
        run.version,
        run.run,
        step_id,
        visit,
        run.lead_id,
        person_id,
        kind,
        list(ids),
    )
    return at


async def restore(connection: Connection, event: StepPerformed) -> None:
    """Enter an act that was told."""
    await connection.execute(
        RESTORE,
        event.act_id,
        event.enrolment_id,
        event.sequence_id,
        event.sequence_version,
        event.run,
        event.step_id,
        event.visit,
        event.lead_id,
        event.person_id,
        event.kind,
        event.occurred_at,
        event.came_to,
    )


async def say(connection: Connection, act_id: EventId, came_to: str) -> None:
    """Note what an act came to."""
    await connection.execute(SAY, act_id, came_to)


async def listed(
    connection: Connection, ids: Sequence[LeadId], before: tuple[datetime, str], limit: int
) -> list[asyncpg.Record]:
    """What steps did about a person, the last first."""
    rows: list[asyncpg.Record] = await connection.fetch(LISTED, ids, *before, limit)
    return rows


async def due_at_once(connection: Connection, enrolment_id: str) -> None:
    """Let a run be looked at again now."""
    await connection.execute(DUE_AT_ONCE, enrolment_id)
