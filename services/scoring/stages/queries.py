"""Where persons stand, what was told of it, and when to look again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from services.scoring.decisions.domain import Decision, decision_of
from services.scoring.stages.domain import FIRST, Check, Verdict
from shared.db import Connection
from shared.events import Stage, StageChanged
from shared.ids import AccountId, LeadId

COLUMNS = """
    person_id, stage, held, furthest, since, reason, revision, told_total, told_grade, due_at, due_below, told_scores,
    account_id, ruled, decision, erased
"""
LOAD = f"SELECT {COLUMNS} FROM standings WHERE person_id = ANY($1)"
LOCK = f"SELECT {COLUMNS} FROM standings WHERE person_id = ANY($1) ORDER BY person_id FOR UPDATE"
MAKE = """
INSERT INTO standings (person_id) SELECT id FROM unnest($1::text[]) AS id ORDER BY id ON CONFLICT DO NOTHING
"""
SAVE = """
UPDATE standings SET stage = new.stage, held = new.held, furthest = new.furthest, since = new.since,
    reason = new.reason, revision = new.revision, told_total = new.told_total, told_grade = new.told_grade,
    told_scores = new.told_scores, account_id = new.account_id, ruled = new.ruled, decision = new.decision,
    due_at = new.due_at, due_below = new.due_below
FROM json_to_recordset($1) AS new (person_id text, stage text, held text[], furthest text, since timestamptz,
    reason text, revision bigint, told_total integer, told_grade text, told_scores jsonb, account_id text, ruled text,
    decision jsonb, due_at timestamptz, due_below double precision)
WHERE standings.person_id = new.person_id
"""
SCHEDULE = """
UPDATE standings SET due_at = new.due_at, due_below = new.due_below
FROM unnest($1::text[], $2::timestamptz[], $3::double precision[]) AS new (person_id, due_at, due_below)
WHERE standings.person_id = new.person_id
"""
RECORD = """
INSERT INTO stage_changes (person_id, revision, stage, previous, reason, at, engagement, fit, total, grade,
    rules_version, cause, move, until, decision_id, touch)
SELECT * FROM json_to_recordset($1) AS new (person_id text, revision bigint, stage text, previous text, reason text,
    at timestamptz, engagement double precision, fit integer, total double precision, grade text,
    rules_version integer, cause text, move text, until timestamptz, decision_id text, touch jsonb)
"""
DUE = """
SELECT person_id, due_at FROM standings WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
DUE_AMONG = "SELECT person_id, due_at FROM standings WHERE person_id = ANY($1) AND due_at <= $2 ORDER BY person_id"
VANISH = """
INSERT INTO standings (person_id, erased) VALUES ($1, true)
ON CONFLICT (person_id) DO UPDATE SET erased = true, stage = excluded.stage, held = excluded.held,
    furthest = excluded.furthest, since = NULL, reason = '', due_at = NULL, due_below = NULL, ruled = NULL,
    decision = NULL
"""
NEXT_DUE = "SELECT min(due_at) FROM standings WHERE due_at IS NOT NULL"
MARK_UNSETTLED = "INSERT INTO unsettled SELECT id FROM unnest($1::text[]) AS id ORDER BY id ON CONFLICT DO NOTHING"
TAKE_UNSETTLED = """
DELETE FROM unsettled WHERE person_id IN
    (SELECT person_id FROM unsettled ORDER BY person_id LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING person_id
"""
REACHED_BEFORE = "SELECT DISTINCT stage FROM stage_changes WHERE person_id = $1 AND at < $2"
CHANGES = """
SELECT change.person_id, revision, change.stage, previous, change.reason, at, engagement, fit, total, grade,
    rules_version, cause, move, change.until, change.touch, decision_id
FROM stage_changes AS change
WHERE change.person_id = $1 AND revision < $2
    AND NOT EXISTS (SELECT 1 FROM standings WHERE standings.person_id = $1 AND erased)
ORDER BY revision DESC LIMIT $3
"""
# Of all that were merged into the person, the person's own last; `merged_at` is when another became the person.
STAGES_UNTIL = """
WITH RECURSIVE part AS (
    SELECT $1::text AS person_id, NULL::timestamptz AS merged_at
    UNION
    SELECT alias.lead_id, alias.at
    FROM part JOIN identity_aliases AS alias ON alias.into_id = part.person_id AND alias.active
)
SELECT change.stage, change.reason, change.at, change.until, part.merged_at
FROM part JOIN stage_changes AS change ON change.person_id = part.person_id AND change.at <= $2
WHERE NOT EXISTS (SELECT 1 FROM standings WHERE standings.person_id = change.person_id AND erased)
ORDER BY part.merged_at IS NULL, change.at, change.revision
"""


OF_THE_EVENT = (
    *("revision", "stage", "previous", "reason", "engagement", "fit", "total", "grade", "rules_version", "move"),
    "until",
)


class Told(NamedTuple):
    """A stage change with the fact that it follows from, the decision behind it, and the touch that made it."""

    event: StageChanged
    cause: str
    decision_id: str | None = None
    touch: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Stood:
    """Where a person stood, what was told of it (None: nothing yet), and when to look again.

    `account_id` is the account that the person counted for, `decision` the latest that was taken about the person,
    also when it has ended.
    """

    person_id: LeadId
    verdict: Verdict
    furthest: Stage = FIRST
    since: datetime | None = None
    revision: int = 0
    told_total: int | None = None
    told_grade: str | None = None
    due: Check | None = None
    told_scores: Mapping[str, int] = field(default_factory=dict)
    account_id: AccountId | None = None
    decision: Decision | None = None
    erased: bool = False


async def load_stood(connection: Connection, person_ids: Iterable[LeadId]) -> dict[LeadId, Stood]:
    """Where those of the persons that were ever judged stand."""
    rows = await connection.fetch(LOAD, sorted(set(person_ids)))
    return {LeadId(row["person_id"]): _stood(row) for row in rows}


async def lock_stood(connection: Connection, person_ids: Iterable[LeadId]) -> dict[LeadId, Stood]:
    """Where the persons stand, and nobody else judges them before this transaction ends."""
    ids = sorted(set(person_ids))
    rows = await connection.fetch(LOCK, ids)
    if len(rows) < len(ids):
        await connection.execute(MAKE, ids)
        rows = await connection.fetch(LOCK, ids)
    return {LeadId(row["person_id"]): _stood(row) for row in rows}


async def save_stood(connection: Connection, changed: Iterable[Stood]) -> None:
    """Write where persons stand now, what was told, and when to look again; their rows must be locked."""
    rows = [
        {
            "person_id": stood.person_id,
            "stage": stood.verdict.stage,
            "held": sorted(stood.verdict.held),
            "furthest": stood.furthest,
            "since": stood.since,
            "reason": stood.verdict.reason,
            "revision": stood.revision,
            "told_total": stood.told_total,
            "told_grade": stood.told_grade,
            "told_scores": dict(stood.told_scores),
            "account_id": stood.account_id,
            "ruled": stood.verdict.ruled,
            "decision": asdict(stood.decision) if stood.decision is not None else None,
            "due_at": stood.due and stood.due.at,
            "due_below": stood.due and stood.due.below,
        }
        for stood in changed
    ]
    if rows:
        await connection.execute(SAVE, rows)


async def schedule(connection: Connection, checks: Sequence[tuple[LeadId, Check | None]]) -> None:
    """Write when to look again; None: not before another fact."""
    if checks:
        ordered = sorted(checks, key=lambda check: check[0])
        await connection.execute(
            SCHEDULE,
            [person_id for person_id, _ in ordered],
            [check.at if check else None for _, check in ordered],
            [check.below if check else None for _, check in ordered],
        )


async def record_changes(connection: Connection, changes: Sequence[Told]) -> None:
    """Keep stage changes, each with its cause."""
    rows = [
        {
            "person_id": event.lead_id,
            "at": event.occurred_at,
            "cause": told.cause,
            "decision_id": told.decision_id,
            "touch": told.touch and dict(told.touch),
            **{name: getattr(event, name) for name in OF_THE_EVENT},
        }
        for told in changes
        for event in (told.event,)
    ]
    if rows:
        await connection.execute(RECORD, rows)


async def due_among(connection: Connection, person_ids: Iterable[LeadId], now: datetime) -> dict[LeadId, datetime]:
    """Those of the persons whose time has come, and which time it is."""
    rows = await connection.fetch(DUE_AMONG, sorted(set(person_ids)), now)
    return {LeadId(row["person_id"]): row["due_at"] for row in rows}


async def vanish(connection: Connection, person_id: LeadId) -> None:
    """Forget where an erased person stood, for good: nobody judges them any more."""
    await connection.execute(VANISH, person_id)


async def claim_due(connection: Connection, now: datetime, limit: int) -> dict[LeadId, datetime]:
    """Persons whose time has come, locked, and which time it was."""
    return {LeadId(row["person_id"]): row["due_at"] for row in await connection.fetch(DUE, now, limit)}


async def next_due(connection: Connection) -> datetime | None:
    """When the next person's time comes."""
    at: datetime | None = await connection.fetchval(NEXT_DUE)
    return at


async def mark_unsettled(connection: Connection, person_ids: Iterable[LeadId]) -> None:
    """Have persons looked at soon."""
    if ids := sorted(set(person_ids)):
        await connection.execute(MARK_UNSETTLED, ids)


async def take_unsettled(connection: Connection, limit: int) -> list[LeadId]:
    """Persons to be looked at; they are taken off the list."""
    return [LeadId(row["person_id"]) for row in await connection.fetch(TAKE_UNSETTLED, limit)]


async def stage_changes(connection: Connection, person_id: LeadId, before: int, limit: int) -> list[asyncpg.Record]:
    """A person's stage changes before a revision, the newest first."""
    return await connection.fetch(CHANGES, person_id, before, limit)


async def stages_until(connection: Connection, person_id: LeadId, at: datetime) -> list[asyncpg.Record]:
    """The stage changes of a person and of whom was merged into it up to an instant, the person's own last, each oldest
    first; `merged_at` is when another became the person.
    """
    return await connection.fetch(STAGES_UNTIL, person_id, at)


async def reached_before(connection: Connection, person_id: LeadId, at: datetime) -> set[Stage]:
    """The stages that a person entered before a time."""
    return {row["stage"] for row in await connection.fetch(REACHED_BEFORE, person_id, at)}


def _stood(row: asyncpg.Record) -> Stood:
    due = Check(row["due_at"], row["due_below"]) if row["due_at"] is not None else None
    decision = decision_of(row["decision"]) if row["decision"] is not None else None
    stands = decision.decision_id if decision is not None and row["ruled"] is not None else None
    return Stood(
        LeadId(row["person_id"]),
        Verdict(row["stage"], frozenset(row["held"]), row["reason"], row["ruled"], stands),
        row["furthest"],
        row["since"],
        row["revision"],
        row["told_total"],
        row["told_grade"],
        due,
        row["told_scores"],
        row["account_id"],
        decision,
        row["erased"],
    )
