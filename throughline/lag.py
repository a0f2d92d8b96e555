"""How far behind every reader is: consumers behind Kafka, relays behind their event log."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from shared.db import Connection, Database
from shared.kafka import probe
from shared.service import positions_name, projection_version
from shared.settings import Settings

POSITIONS = """
SELECT consumer, topic, partition, next_offset FROM consumer_positions
WHERE consumer = ANY($1) ORDER BY consumer, topic, partition
"""
SECONDS = """
SELECT topic, partition, extract(epoch FROM clock_timestamp() - min(at))::float8 AS seconds
FROM feed_watermarks GROUP BY topic, partition
"""
UNPUBLISHED = """
SELECT cursor.log, cursor.position, coalesce(max(row.position), cursor.position) AS newest,
       count(row.position) AS waiting, extract(epoch FROM clock_timestamp() - min(row.recorded_at))::float8 AS seconds
FROM relay_cursors AS cursor LEFT JOIN event_log AS row ON row.log = cursor.log AND row.position > cursor.position
GROUP BY cursor.log, cursor.position ORDER BY cursor.log
"""
LOG_NAMES = {0: "api log", 1: "consumer log"}


@dataclass(frozen=True, slots=True)
class LagRow:
    """One reader's place. `seconds` is the age of what it has not read, as far as that is known."""

    service: str
    what: str
    place: str
    position: int
    end: int
    lag: int
    seconds: float | None


async def lags_of(settings: Settings, services: Sequence[str]) -> list[LagRow]:
    """Every consumer and every relay."""
    rows: list[LagRow] = []
    for service in services:
        database = Database(settings.database_url.get_secret_value(), service, pool_size=1)
        try:
            async with database.reading() as connection:
                rows += await _consumers(settings, connection, service)
                rows += await _relays(connection, service)
        finally:
            await database.close()
    return rows


async def _consumers(settings: Settings, connection: Connection, service: str) -> list[LagRow]:
    version = await projection_version(connection)
    positions = await connection.fetch(POSITIONS, [positions_name(service, version), f"{service}-keys"])
    places = {TopicPartition(settings.topic_prefix + row["topic"], row["partition"]) for row in positions}
    seconds = {(row["topic"], row["partition"]): row["seconds"] for row in await connection.fetch(SECONDS)}
    if not places:
        return []
    async with probe(settings.kafka_bootstrap_servers) as kafka:
        ends = await kafka.ends(places)
    found = []
    for row in positions:
        end = ends[TopicPartition(settings.topic_prefix + row["topic"], row["partition"])]
        known = seconds.get((row["topic"], row["partition"]))
        found.append(
            LagRow(
                service=service,
                what=row["consumer"],
                place=f"{row['topic']}/{row['partition']}",
                position=row["next_offset"],
                end=end,
                lag=max(end - row["next_offset"], 0),
                seconds=round(known, 1) if known is not None else None,
            )
        )
    return found


async def _relays(connection: Connection, service: str) -> list[LagRow]:
    return [
        LagRow(
            service=service,
            what="relay",
            place=LOG_NAMES[row["log"]],
            position=row["position"],
            end=row["newest"],
            lag=row["waiting"],
            seconds=round(row["seconds"], 1) if row["seconds"] is not None else 0.0,
        )
        for row in await connection.fetch(UNPUBLISHED)
    ]
