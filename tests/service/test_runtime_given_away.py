"""A partition that is given away in the one moment in which a batch of it waits for a connection."""

import asyncio
from typing import Any

import asyncpg
from aiokafka import ConsumerRecord, TopicPartition

from shared.clock import SystemClock
from shared.db import Database
from shared.kafka import Consumer
from shared.settings import Settings

OURS, THEIRS = TopicPartition("test.touches", 0), TopicPartition("test.touches", 1)


class Rebalancing(Database):
    """PostgreSQL, which takes long enough to connect to for the group to give a partition to another member."""

    consumer: Consumer

    async def connect(self, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        self.consumer.let_go([THEIRS])
        return await super().connect(**options)


class Noting:
    """What was carried out."""

    serving = True
    kinds: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.carried_out: list[tuple[str, int]] = []

    def awaits(self, record: Any) -> bool:
        return True

    async def process(self, connection: "asyncpg.Connection[asyncpg.Record]", batch: Any) -> None:
        self.carried_out += batch.spans


def record(place: TopicPartition) -> "ConsumerRecord[bytes, bytes]":
    return ConsumerRecord(place.topic, place.partition, 0, 0, 0, b"key", b"{}", None, 3, 2, ())


async def test_what_is_given_away_while_a_batch_connects_is_left_out_of_it_and_the_rest_is_carried_out(
    settings: Settings,
) -> None:
    database = Rebalancing(settings.database_url.get_secret_value(), "capture")
    noting = Noting()
    consumer = Consumer(
        settings, database, SystemClock(), group="capture", topics=["touches"], positions="capture.v1", processor=noting
    )
    database.consumer = consumer
    for place in (OURS, THEIRS):
        consumer._places.set(place, 0)
        consumer._let_in(place, [record(place)])
    await asyncio.wait_for(consumer._carry_out(consumer._pending.take()), 60)
    consumer._writer.hang_up()
    assert noting.carried_out == [("touches", 0)]
