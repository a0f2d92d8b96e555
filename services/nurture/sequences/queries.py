"""Which versions of sequences matter now, runs that follow another one, and trials on history."""

from collections.abc import Sequence

from shared.db import Connection
from shared.ids import SequenceId

CURRENT_VERSIONS = """
SELECT DISTINCT ON (name) name, version FROM rule_activations
WHERE kind = 'sequence' AND effective_at <= clock_timestamp()
ORDER BY name, effective_at DESC, sequence DESC
"""
# One probe of the index per version there is, however many runs are under way.
VERSIONS_UNDER_WAY = """
SELECT name, version FROM rule_documents AS document
WHERE kind = 'sequence' AND EXISTS (
    SELECT FROM enrolments
    WHERE active AND enrolments.sequence_id = document.name AND enrolments.version = document.version
)
"""
LISTED = """
SELECT DISTINCT name FROM rule_documents WHERE kind = 'sequence' AND name > $1 ORDER BY name LIMIT $2
"""
RUNS_OF_OTHERS = "SELECT count(*) FROM enrolments WHERE active AND sequence_id = $1 AND version <> $2"
# A wait counts while it is under way: neither over, nor held by anything, nor looked at by a sender just now.
WAITS = "CASE WHEN hold IS NULL AND claim IS NULL AND due_at > clock_timestamp() THEN waits_at END"
STANDINGS = f"""
SELECT version, step_id, {WAITS} AS waits_at, count(*) AS runs FROM enrolments
WHERE active AND sequence_id = $1 AND version <> $2 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
# Those that a transaction holds come in the next round.
MOVE_RUNS = f"""
UPDATE enrolments SET version = $5, step_id = $6, claim = NULL,
    waits_at = CASE WHEN $9 OR $8::interval IS NOT NULL THEN $7 ELSE waits_at END,
    due_at = CASE WHEN $8::interval IS NOT NULL THEN waiting_since + $8::interval
                  WHEN $9 OR claim IS NOT NULL THEN clock_timestamp() ELSE due_at END,
    hold = CASE WHEN $9 THEN NULL ELSE hold END
WHERE enrolment_id IN (
    SELECT enrolment_id FROM enrolments
    WHERE active AND sequence_id = $1 AND version = $2 AND step_id = $3 AND ({WAITS}) IS NOT DISTINCT FROM $4
    LIMIT 10000 FOR UPDATE SKIP LOCKED
)
RETURNING enrolment_id
"""
# What waits to be sent is written by the version that the run follows.
REWRITE_MESSAGES = """
UPDATE messages SET version = $2 WHERE enrolment_id = ANY($1) AND state = 'planned' AND claim_until IS NULL
"""
DECIDE_MOVE = """
INSERT INTO sequence_moves AS known (sequence_id, version, steps) VALUES ($1, $2, $3)
ON CONFLICT (sequence_id) DO UPDATE SET version = excluded.version, steps = excluded.steps,
    decided_at = clock_timestamp(), moved = 0, finished_at = NULL
"""
STOP_MOVE = "UPDATE sequence_moves SET finished_at = clock_timestamp() WHERE sequence_id = $1 AND finished_at IS NULL"
OPEN_MOVES = """
SELECT sequence_id, version, steps, decided_at < clock_timestamp() - $1::interval AS is_old
FROM sequence_moves WHERE finished_at IS NULL ORDER BY sequence_id
"""
LOCK_MOVE = """
SELECT true FROM sequence_moves WHERE sequence_id = $1 AND version = $2 AND finished_at IS NULL
FOR UPDATE SKIP LOCKED
"""
COUNT_MOVED = "UPDATE sequence_moves SET moved = moved + $2 WHERE sequence_id = $1"
MOVE_STATE = "SELECT version, moved, decided_at, finished_at FROM sequence_moves WHERE sequence_id = $1"
SEGMENTS_WITH_PEOPLE = """
SELECT named FROM unnest($1::text[]) AS named WHERE EXISTS (SELECT FROM segments WHERE segment_id = named AND member)
"""
ASK_TRIAL = """
WITH old AS (DELETE FROM sequence_trials WHERE asked_at < clock_timestamp() - interval '7 days')
INSERT INTO sequence_trials (trial_id, sequence_id, state, version, document, days, author)
VALUES ($1, $2, 'running', $3, $4, $5, $6)
"""
LOAD_TRIAL = """
SELECT trial_id, version, days, author, asked_at, finished_at, facts, report, problem,
    CASE WHEN state = 'running' AND alive_at < clock_timestamp() - interval '30 seconds' THEN 'failed' ELSE state END
    AS state
FROM sequence_trials WHERE sequence_id = $1 AND trial_id = $2
"""
SHOW_LIFE = """
UPDATE sequence_trials SET alive_at = clock_timestamp(), facts = $2 WHERE trial_id = $1 AND state = 'running'
RETURNING true
"""
FINISH_TRIAL = """
UPDATE sequence_trials SET state = $2, report = $3, problem = $4, finished_at = clock_timestamp()
WHERE trial_id = $1 AND state = 'running'
"""


async def current_versions(connection: Connection) -> list[tuple[SequenceId, int]]:
    """Each sequence's version that counts now."""
    return [(SequenceId(row["name"]), row["version"]) for row in await connection.fetch(CURRENT_VERSIONS)]


async def versions_under_way(connection: Connection) -> list[tuple[SequenceId, int]]:
    """Every version that a run follows."""
    return [(SequenceId(row["name"]), row["version"]) for row in await connection.fetch(VERSIONS_UNDER_WAY)]


async def listed(connection: Connection, after: str, limit: int) -> list[SequenceId]:
    """A page of sequence ids, in their order."""
    return [SequenceId(row["name"]) for row in await connection.fetch(LISTED, after, limit)]


async def runs_of_others(connection: Connection, sequence_id: str, version: int) -> int:
    """How many runs under way follow another version."""
    return int(await connection.fetchval(RUNS_OF_OTHERS, sequence_id, version))


async def segments_with_people(connection: Connection, named: Sequence[str]) -> set[str]:
    """Of these segments those that anybody is in."""
    return {row["named"] for row in await connection.fetch(SEGMENTS_WITH_PEOPLE, named)}
