"""Decisions about stages: kept under the id a lead had then, found under whoever that is now."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.scoring.decisions.domain import Decision
from services.scoring.people.queries import IDS
from shared.db import Connection
from shared.ids import LeadId

BY_RULES = "throughline"
"""The author of what nobody decided by hand."""
ADD = """
INSERT INTO stage_decisions (lead_id, decision_id, kind, stage, since, until, because, reason, sealed, of_record,
    author)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING
"""
END = """
UPDATE stage_decisions SET ended_at = $3, end_reason = $4, ended_by = $5
WHERE lead_id = $1 AND decision_id = $2 AND ended_at IS NULL
"""
# What stands goes before what has ended, then the latest. What is about a record, as that it is a duplicate, stays with
# it when it is merged, and is settled where another lead was merged into it since.
LATEST = f"""{IDS}
SELECT DISTINCT ON (ids.person_id) ids.person_id, decision.*
FROM ids JOIN stage_decisions AS decision ON decision.lead_id = ids.id
WHERE NOT (decision.of_record AND (decision.lead_id <> ids.person_id OR EXISTS (
    SELECT 1 FROM identity_aliases AS alias JOIN profiles USING (lead_id)
    WHERE alias.into_id = decision.lead_id AND alias.active AND alias.at >= decision.since
)))
ORDER BY ids.person_id, decision.ended_at IS NOT NULL, coalesce(decision.ended_at, decision.since) DESC,
    decision.since DESC, decision.decision_id
"""
OF_PERSON = f"""{IDS}
SELECT decision.* FROM ids JOIN stage_decisions AS decision ON decision.lead_id = ids.id
WHERE (decision.since, decision.decision_id) < ($2, $3) ORDER BY decision.since DESC, decision.decision_id DESC LIMIT $4
"""
USED_REASONS = """
SELECT kind, reason, count(*) AS number FROM stage_decisions WHERE since >= $1 AND author <> $2
GROUP BY kind, reason ORDER BY kind, reason
"""
FORGET = "DELETE FROM stage_decisions WHERE lead_id = $1"


async def latest(connection: Connection, person_ids: Collection[LeadId]) -> dict[LeadId, Decision]:
    """The decision that counts about each of these persons, also when it has ended."""
    rows = await connection.fetch(LATEST, sorted(person_ids)) if person_ids else []
    return {LeadId(row["person_id"]): _decision(row) for row in rows}


async def of_person(
    connection: Connection, person_id: LeadId, before: tuple[datetime, str], limit: int
) -> list[asyncpg.Record]:
    """The decisions about a person before a place in the list, the newest first."""
    return await connection.fetch(OF_PERSON, [person_id], *before, limit)


async def add(  # noqa: PLR0913  # the columns of a decision
    connection: Connection,
    decision: Decision,
    *,
    kind: str,
    reason: str,
    author: str,
    sealed: str | None = None,
    of_record: bool = False,
) -> None:
    """Keep a decision. A note comes sealed; `of_record`: it is about this record, not about the person."""
    await connection.execute(
        ADD,
        decision.lead_id,
        decision.decision_id,
        kind,
        decision.stage,
        decision.since,
        decision.until,
        decision.because,
        reason,
        sealed,
        of_record,
        author,
    )


async def end(connection: Connection, decision: Decision, by: str | None = None) -> None:
    """Keep that a decision has ended, and why."""
    await connection.execute(END, decision.lead_id, decision.decision_id, decision.ended_at, decision.end_reason, by)


async def save_outcomes(connection: Connection, decisions: Sequence[Decision]) -> None:
    """Keep what judging came to: decisions that were over, and those that follow from attempts to reach a lead."""
    for decision in decisions:
        if not decision.by_hand:
            await add(connection, decision, kind="recycle", reason="attempts", author=BY_RULES)
        if decision.ended_at is not None:
            await end(connection, decision)


async def used_reasons(connection: Connection, since: datetime) -> list[asyncpg.Record]:
    """How often each reason was given by hand since a time."""
    return await connection.fetch(USED_REASONS, since, BY_RULES)


async def forget(connection: Connection, lead_ids: Iterable[LeadId]) -> None:
    """Forget all decisions about ids."""
    for lead_id in sorted(set(lead_ids)):
        await connection.execute(FORGET, lead_id)


def _decision(row: asyncpg.Record) -> Decision:
    values: dict[str, Any] = {name: row[name] for name in Decision.__slots__ if name != "by_hand"}
    return Decision(**values, by_hand=row["author"] != BY_RULES)
