"""The statements about what moved since an answer was read."""

from services.attribution.debts.queries import AS_OF as CREDITS_AS_OF
from services.attribution.debts.queries import TOPICS as JOURNEY_TOPICS
from services.attribution.pipeline.reading import TOPICS as PIPELINE_TOPICS
from services.attribution.remainders.queries import AS_OF as JOURNEYS_AS_OF
from services.attribution.standing.domain import Moments, State, Version
from shared.db import Connection, one

CREDIT_TOPICS = ("leads", "touches", "conversions", "costs", "deals")
# Snapshots are in one order: of two that count as many transactions neither sees one more. Of another projection, or
# of a server that was started anew, which may be an earlier state of it, nothing stands.
STATE = f"""
SELECT current_schema()::regnamespace::oid::bigint AS projection, pg_postmaster_start_time() AS server_since,
    moves, firm, ({CREDITS_AS_OF}) AS credits, ({JOURNEYS_AS_OF.replace("$1", "$2")}) AS journeys,
    ({CREDITS_AS_OF.replace("$1", "$3")}) AS pipeline
FROM (
    SELECT coalesce(sum(moves), 0)::bigint AS moves, coalesce(sum(firm), 0)::bigint AS firm FROM report_moves
) AS moved
"""
TOGETHER = """
WITH taken AS (
    DELETE FROM report_moves WHERE (SELECT count(*) FROM report_moves) > $1 RETURNING moves, firm
)
INSERT INTO report_moves SELECT sum(moves), sum(firm) FROM taken HAVING count(*) > 0
"""
FEW = 16


async def state(connection: Connection) -> State:
    """What the snapshot at hand shows."""
    row = await one(connection, STATE, CREDIT_TOPICS, JOURNEY_TOPICS, PIPELINE_TOPICS)
    return State(
        Version(row["projection"], row["server_since"], row["moves"], row["firm"]),
        Moments(row["credits"], row["journeys"], row["pipeline"]),
    )


async def bring_together(connection: Connection) -> None:
    """Make one row of those that transactions left."""
    await connection.execute(TOGETHER, FEW)
