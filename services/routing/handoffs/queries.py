"""The statements about hand-offs and their tasks."""

from collections.abc import Sequence
from dataclasses import astuple, fields
from datetime import datetime, timedelta

import asyncpg

from services.routing.handoffs.domain import Handoff, Task
from shared.db import Connection
from shared.events import HandoffTaskChanged
from shared.ids import DealId, LeadId

COLUMNS = ", ".join(column.name for column in fields(Handoff))
PLACES = ", ".join(f"${index}" for index in range(1, len(fields(Handoff)) + 1))
EXCLUDED = ", ".join(f"excluded.{column.name}" for column in fields(Handoff))
TASK = "task_id, title, due_at, completed_at, completed_by"
PUT = f"""
INSERT INTO handoffs AS known ({COLUMNS}) VALUES ({PLACES})
ON CONFLICT (deal_id) DO UPDATE SET ({COLUMNS}) = ROW ({EXCLUDED}) WHERE known.revision < excluded.revision
RETURNING deal_id
"""
ONE = f"SELECT {COLUMNS} FROM handoffs WHERE deal_id = $1"
LOCK_ONE = f"{ONE} FOR UPDATE"
# A deal that is won again has its tasks anew, but for those that are done.
PUT_TASKS = """
INSERT INTO handoff_tasks AS known (deal_id, task_id, place, title, due_at)
SELECT $1, * FROM unnest($2::text[], $3::integer[], $4::text[], $5::timestamptz[])
ON CONFLICT (deal_id, task_id) DO UPDATE SET title = excluded.title, due_at = excluded.due_at
WHERE known.completed_at IS NULL
"""
MOVE_TASKS = "UPDATE handoff_tasks SET due_at = due_at + $2 WHERE deal_id = $1"
TASKS = f"SELECT deal_id, {TASK} FROM handoff_tasks WHERE deal_id = ANY($1) ORDER BY deal_id, place"
CHANGE_TASK = """
WITH known AS (
    SELECT FROM handoff_tasks WHERE deal_id = $1 AND task_id = $2
), changed AS (
    UPDATE handoff_tasks SET completed_at = $3, completed_by = $4, revision = revision + 1
    WHERE deal_id = $1 AND task_id = $2 AND (completed_at IS NULL) = ($3::timestamptz IS NOT NULL) RETURNING revision
)
SELECT coalesce((SELECT revision FROM changed), 0) FROM known
"""
TASKS_TOLD = """
UPDATE handoff_tasks AS known SET completed_at = told.completed_at, completed_by = NULL, revision = told.revision
FROM (
    SELECT DISTINCT ON (deal_id, task_id) *
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
        AS told (deal_id, task_id, revision, completed_at)
    ORDER BY deal_id, task_id, revision DESC
) AS told
WHERE known.deal_id = told.deal_id AND known.task_id = told.task_id AND known.revision < told.revision
"""
WITHOUT_OWNER = f"""
SELECT {COLUMNS} FROM handoffs WHERE retry_at <= $1 ORDER BY retry_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
KEEP_WAITING = "UPDATE handoffs SET owner_why = $2, retry_at = $3 WHERE deal_id = $1"
NEXT_RETRY = "SELECT min(retry_at) FROM handoffs WHERE retry_at IS NOT NULL"
LIST = f"""
SELECT {COLUMNS} FROM handoffs
WHERE (opened_at, deal_id) < ($1, $2) AND ($3::text IS NULL OR owner_id = $3)
    AND ($4::text[] IS NULL OR lead_id = ANY($4))
    AND ($5::text IS NULL OR $5 = CASE
        WHEN withdrawn_at IS NOT NULL THEN 'withdrawn'
        WHEN EXISTS (
            SELECT 1 FROM handoff_tasks AS task WHERE task.deal_id = handoffs.deal_id AND completed_at IS NULL
        ) THEN 'open' ELSE 'done' END)
    AND ($6::timestamptz IS NULL OR withdrawn_at IS NULL AND EXISTS (
        SELECT 1 FROM handoff_tasks AS task
        WHERE task.deal_id = handoffs.deal_id AND completed_at IS NULL AND due_at < $6))
ORDER BY opened_at DESC, deal_id DESC LIMIT $7
"""


async def put_handoff(connection: Connection, handoff: Handoff) -> bool:
    """A hand-off as it stands; False where a newer state is known."""
    return await connection.fetchval(PUT, *astuple(handoff)) is not None


async def handoff_of_deal(connection: Connection, deal_id: DealId, *, locked: bool = False) -> Handoff | None:
    """The hand-off of a deal."""
    row = await connection.fetchrow(LOCK_ONE if locked else ONE, deal_id)
    return None if row is None else _handoff(row)


async def put_tasks(connection: Connection, deal_id: DealId, tasks: Sequence[Task]) -> None:
    """What is to be done, in order."""
    await connection.execute(
        PUT_TASKS,
        deal_id,
        [task.task_id for task in tasks],
        list(range(len(tasks))),
        [task.title for task in tasks],
        [task.due_at for task in tasks],
    )


async def move_tasks(connection: Connection, deal_id: DealId, by: timedelta) -> None:
    """All tasks are due so much later."""
    await connection.execute(MOVE_TASKS, deal_id, by)


async def tasks_of_deals(connection: Connection, deal_ids: Sequence[DealId]) -> dict[DealId, list[Task]]:
    """The tasks of hand-offs, in order."""
    found: dict[DealId, list[Task]] = {deal_id: [] for deal_id in deal_ids}
    for row in await connection.fetch(TASKS, deal_ids):
        columns = dict(row)
        found[DealId(columns.pop("deal_id"))].append(Task(**columns))
    return found


async def change_task(
    connection: Connection, deal_id: DealId, task_id: str, at: datetime | None, by: str | None
) -> int | None:
    """A task is done, or (no time) to be done after all. Its new revision; 0: it was so; None: there is none."""
    revision: int | None = await connection.fetchval(CHANGE_TASK, deal_id, task_id, at, by)
    return revision


async def tasks_told(connection: Connection, told: Sequence[HandoffTaskChanged]) -> None:
    """How tasks stand as it was published: news only after the database was restored."""
    await connection.execute(
        TASKS_TOLD,
        [one.deal_id for one in told],
        [one.task_id for one in told],
        [one.revision for one in told],
        [one.completed_at for one in told],
    )


async def without_owner(connection: Connection, at: datetime, limit: int) -> list[Handoff]:
    """Hand-offs that nobody could be found for, to be tried again, locked."""
    return [_handoff(row) for row in await connection.fetch(WITHOUT_OWNER, at, limit)]


async def keep_waiting(connection: Connection, handoff: Handoff) -> None:
    """Nobody was found still: why, and when to try again."""
    await connection.execute(KEEP_WAITING, handoff.deal_id, handoff.owner_why, handoff.retry_at)


async def next_retry(connection: Connection) -> datetime | None:
    """When the next of them is tried."""
    at: datetime | None = await connection.fetchval(NEXT_RETRY)
    return at


async def listed(  # noqa: PLR0913  # the filters of one list
    connection: Connection,
    before: tuple[datetime, str],
    owner_id: str | None,
    lead_ids: Sequence[LeadId] | None,
    status: str | None,
    overdue_at: datetime | None,
    limit: int,
) -> list[Handoff]:
    """Hand-offs before a place in the list, the newest first."""
    rows = await connection.fetch(LIST, *before, owner_id, lead_ids, status, overdue_at, limit)
    return [_handoff(row) for row in rows]


def _handoff(row: asyncpg.Record) -> Handoff:
    return Handoff(**{**row, "required": tuple(row["required"])})
