"""The statements about people who may be one."""

from collections.abc import Mapping, Sequence

from shared.db import COPIED_FROM, Connection
from shared.ids import LeadId

MOST_OF_A_KEY = 20
MOST_OF_A_PERSON = 100
PUT_KEYS = """
WITH kept AS (
    SELECT key, lead_id FROM unnest($2::bytea[], $3::text[]) AS kept (key, lead_id)
), gone AS (
    DELETE FROM likeness_keys WHERE lead_id = ANY($1) AND NOT EXISTS (
        SELECT 1 FROM kept WHERE kept.key = likeness_keys.key AND kept.lead_id = likeness_keys.lead_id
    )
), new AS (
    INSERT INTO likeness_keys (key, lead_id) SELECT key, lead_id FROM kept ORDER BY key, lead_id ON CONFLICT DO NOTHING
)
INSERT INTO likeness_checks (lead_id) SELECT lead_id FROM unnest($1::text[]) AS lead_id ORDER BY lead_id
ON CONFLICT (lead_id) DO UPDATE SET settled_at = NULL, seen_at = NULL WHERE likeness_checks.settled_at IS NOT NULL
"""
KEY_COLUMNS = ("key", "lead_id")
GONE = """
WITH gone AS (
    SELECT lead_id FROM leads WHERE merged_into = ANY($1)
), keys AS (
    DELETE FROM likeness_keys USING gone WHERE likeness_keys.lead_id = gone.lead_id
), checks AS (
    DELETE FROM likeness_checks USING gone WHERE likeness_checks.lead_id = gone.lead_id
)
DELETE FROM likenesses USING gone WHERE likenesses.lead_id = gone.lead_id OR likenesses.other_id = gone.lead_id
"""
ERASED = """
WITH keys AS (DELETE FROM likeness_keys WHERE lead_id = ANY($1)),
     checks AS (DELETE FROM likeness_checks WHERE lead_id = ANY($1))
DELETE FROM likenesses WHERE lead_id = ANY($1) OR other_id = ANY($1)
"""
SEE = """
UPDATE likeness_checks SET settled_at = pg_snapshot_xmax(pg_current_snapshot()), seen_at = clock_timestamp()
WHERE lead_id IN (SELECT lead_id FROM likeness_checks WHERE settled_at IS NULL LIMIT $1 FOR UPDATE SKIP LOCKED)
"""
CLAIM = """
DELETE FROM likeness_checks WHERE lead_id IN (
    SELECT lead_id FROM likeness_checks
    WHERE seen_at IS NOT NULL
      AND (settled_at <= pg_snapshot_xmin(pg_current_snapshot()) OR seen_at < clock_timestamp() - interval '2 minutes')
    ORDER BY seen_at, lead_id LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING lead_id
"""
# Of a popular key only some, so that a common name costs no more than a rare one.
OTHERS = """
SELECT asked.lead_id, found.lead_id AS other_id
FROM (SELECT DISTINCT lead_id, key FROM likeness_keys WHERE lead_id = ANY($1)) AS asked
CROSS JOIN LATERAL (
    SELECT lead_id FROM likeness_keys WHERE key = asked.key AND lead_id <> asked.lead_id ORDER BY lead_id LIMIT $2
) AS found
GROUP BY asked.lead_id, found.lead_id
"""
FORGET_PAIRS = "DELETE FROM likenesses WHERE lead_id = ANY($1) OR other_id = ANY($1)"
ADD_PAIRS = """
INSERT INTO likenesses (lead_id, other_id, score)
SELECT lead_id, other_id, score FROM unnest($1::text[], $2::text[], $3::smallint[]) AS new (lead_id, other_id, score)
ORDER BY lead_id, other_id
ON CONFLICT (lead_id, other_id) DO UPDATE SET score = excluded.score
"""
FORGET_PAIR = "DELETE FROM likenesses WHERE lead_id = least($1, $2) AND other_id = greatest($1, $2)"
BEST = """
SELECT lead_id, other_id, score FROM likenesses
WHERE -score <= -$1::integer
  AND ($2::integer IS NULL OR (-score, lead_id, other_id) > (-$2::integer, $3::text, $4::text))
ORDER BY -score, lead_id, other_id LIMIT $5
"""


async def put_keys(connection: Connection, keys: Mapping[LeadId, frozenset[bytes]]) -> None:
    """Let people be found by these keys and no others."""
    pairs = _pairs(keys)
    await connection.execute(PUT_KEYS, sorted(keys), [key for key, _ in pairs], [lead_id for _, lead_id in pairs])


async def add_keys(connection: Connection, keys: Mapping[LeadId, frozenset[bytes]]) -> None:
    """Let people be found who were not known until now."""
    if len(keys) < COPIED_FROM:
        await put_keys(connection, keys)
        return
    await connection.copy_records_to_table("likeness_keys", records=_pairs(keys), columns=KEY_COLUMNS)
    checks = [(lead_id,) for lead_id in sorted(keys)]
    await connection.copy_records_to_table("likeness_checks", records=checks, columns=("lead_id",))


def _pairs(keys: Mapping[LeadId, frozenset[bytes]]) -> list[tuple[bytes, LeadId]]:
    return sorted((key, lead_id) for lead_id, theirs in keys.items() for key in theirs)


async def forget_merged(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Whatever merged into these leads is nobody's double any more."""
    await connection.execute(GONE, lead_ids)


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Nothing is left by which these could be found."""
    await connection.execute(ERASED, lead_ids)


async def claim_checks(connection: Connection, limit: int) -> list[LeadId]:
    """People to be compared now, taken off the list: nobody is under way any more whom they could miss."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(CLAIM, limit)]


async def see_checks(connection: Connection, limit: int) -> None:
    """Say of new entries of the list who must have finished before they are due."""
    await connection.execute(SEE, limit)


async def others_of(connection: Connection, lead_ids: Sequence[LeadId]) -> dict[LeadId, list[LeadId]]:
    """Who shares a key with each, of a popular key the first ones."""
    found: dict[LeadId, list[LeadId]] = {}
    for row in await connection.fetch(OTHERS, sorted(set(lead_ids)), MOST_OF_A_KEY):
        theirs = found.setdefault(LeadId(row["lead_id"]), [])
        if len(theirs) < MOST_OF_A_PERSON:
            theirs.append(LeadId(row["other_id"]))
    return found


async def put_pairs(
    connection: Connection, lead_ids: Sequence[LeadId], pairs: Mapping[tuple[LeadId, LeadId], int]
) -> None:
    """What is said of these people is this, and nothing else."""
    await connection.execute(FORGET_PAIRS, lead_ids)
    ordered = sorted(pairs)
    if ordered:
        await connection.execute(
            ADD_PAIRS, [one for one, _ in ordered], [other for _, other in ordered], [pairs[pair] for pair in ordered]
        )


async def forget_pair(connection: Connection, one: LeadId, other: LeadId) -> None:
    """These two are not the same."""
    await connection.execute(FORGET_PAIR, one, other)


async def best_pairs(
    connection: Connection, min_score: int, after: tuple[int, str, str] | None, limit: int
) -> list[tuple[LeadId, LeadId, int]]:
    """Pairs with what was found between them, the likeliest first, after a place in that list."""
    rows = await connection.fetch(BEST, min_score, *(after or (None, None, None)), limit)
    return [(LeadId(row["lead_id"]), LeadId(row["other_id"]), row["score"]) for row in rows]
