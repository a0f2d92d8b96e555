"""The statements about costs."""

from collections.abc import Sequence

from shared.db import Connection
from shared.events import CostRecorded

NO_CAMPAIGN = ""
PUT_COSTS = """
INSERT INTO costs AS known
SELECT * FROM unnest(
    $1::date[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], $8::bigint[])
ON CONFLICT (day, channel, campaign, currency, origin) DO UPDATE SET
    position = excluded.position, received_at = excluded.received_at, amount_minor = excluded.amount_minor
WHERE (known.position, known.received_at) < (excluded.position, excluded.received_at)
"""


async def put_costs(connection: Connection, events: Sequence[CostRecorded]) -> None:
    """Store costs, one per day, channel, campaign, currency and origin; of two the one received last stays."""
    await connection.execute(
        PUT_COSTS,
        [event.date for event in events],
        [event.channel for event in events],
        [event.campaign or NO_CAMPAIGN for event in events],
        [event.currency for event in events],
        [event.origin for event in events],
        [event.position for event in events],
        [event.received_at for event in events],
        [event.amount_minor for event in events],
    )
