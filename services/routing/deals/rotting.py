"""Deals about which nothing changes for too long: found, and told once each time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.routing.deals import queries
from services.routing.parts import Parts
from shared.db import Connection, Tx, agreed_now
from shared.events import DealRotted
from shared.ids import DealId, EventId, LeadId, derived_id
from shared.telemetry import counter

ROTTED = counter("throughline_routing_deals_rotted_total", "Deals that fell silent: does sales work on what it has")
AT_ONCE = 200


async def tell_rotted(parts: Parts) -> timedelta | None:
    """Tell of open deals that changed last so long ago; answers no wait when there may be more."""
    async with parts.runtime.database.transaction() as tx:
        now = await agreed_now(tx.connection, parts.runtime.clock)
        silent = await bounds(tx.connection, parts)
        latest = max(bound["silent_since"] for bound in silent)
        rows = await queries.take_rotted(tx.connection, silent, latest, now, AT_ONCE)
        tx.emit(*(_rotted(row, now) for row in rows))
    ROTTED.inc(len(rows))
    return timedelta(0) if len(rows) == AT_ONCE else None


async def bounds(connection: Connection, parts: Parts) -> list[dict[str, Any]]:
    """Since when nothing may have changed about a deal that rots now: by pipeline and stage, and by pipeline."""
    now = await agreed_now(connection, parts.runtime.clock)
    found: list[dict[str, Any]] = []
    for name in await parts.pipelines.names(connection):
        pipeline = await parts.pipelines.of_deal(connection, name)
        days: list[tuple[str | None, int]] = [(None, pipeline.rot_days)]
        days += [(stage.stage_id, stage.rot_days) for stage in pipeline.stages]
        found += [
            {"pipeline_id": name, "stage": stage, "silent_since": now - timedelta(days=allowed)}
            for stage, allowed in days
        ]
    return found


async def on_rotted(events: Sequence[DealRotted], tx: Tx) -> None:
    """What was published, folded back: a database restored to an earlier copy does not tell it again."""
    for event in events:
        await queries.rot_was_told(tx.connection, event.deal_id, event.since, event.occurred_at)


def _rotted(row: asyncpg.Record, now: datetime) -> DealRotted:
    since: datetime = row["changed_at"]
    return DealRotted(
        event_id=EventId(derived_id("deal-rotted", row["deal_id"], since.isoformat())),
        lead_id=LeadId(row["lead_id"]),
        occurred_at=now,
        received_at=now,
        deal_id=DealId(row["deal_id"]),
        revision=row["revision"],
        pipeline_id=row["pipeline_id"],
        stage=row["stage"],
        rep_id=row["rep_id"],
        since=since,
    )
