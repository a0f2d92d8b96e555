"""Reads the facts for subscriptions, each from its own place in Kafka, and hands over what they want.

What is handed over and how far was read are one transaction, and the id of a delivery follows from the fact: whoever
reads, and however often, an endpoint gets each fact once. A subscription whose endpoint is away stays where it is.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError

from services.routing.subscriptions import queries
from services.routing.subscriptions.domain import Subscription, outgoing, sealed_block
from services.routing.subscriptions.queries import Place
from services.routing.webhooks.handlers import enqueue
from shared.db import agreed_now
from shared.events import Event
from shared.kafka import Reader, reading_from
from shared.service import Runtime
from shared.telemetry import counter, log

TOLD = counter("throughline_routing_subscription_facts_total", "Facts handed over for other systems")
MOST_WAITING = 5_000
AT_ONCE = 500
HELD_S = 5.0
EVERY_S = 0.2
ROUNDS = 40
"""So many batches of one subscription, then the next one has its turn."""


class Subscribing:
    """Brings all subscriptions on. Several may run at once: they do the same, and the second finds it done."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self) -> timedelta | None:
        """Read what is new for every subscription that can take more, for some seconds on one connection."""
        if not await self._rows():
            return None
        end = time.monotonic() + HELD_S
        try:
            async with reading_from(self._runtime.settings) as reader:
                while time.monotonic() < end and (rows := await self._rows()):
                    for row in rows:
                        await self._bring_on(reader, row)
                    await asyncio.sleep(EVERY_S)
        except (KafkaError, TimeoutError) as exc:
            log.warning("subscriptions_wait", error=type(exc).__name__)
            return None
        return timedelta()

    async def _rows(self) -> list[asyncpg.Record]:
        async with self._runtime.database.reading() as connection:
            return await queries.reading(connection, MOST_WAITING)

    async def _bring_on(self, reader: Reader, row: asyncpg.Record) -> None:
        subscription, places = queries.subscription_of(row), queries.places_of(row)
        behind = await reader.begin(subscription.topics, places, subscription.since)
        for _ in range(ROUNDS):
            if not behind:
                return
            events, places = await reader.read(AT_ONCE)
            if not await self._hand_over(row, subscription, events, places):
                return
            behind = reader.is_behind

    async def _hand_over(
        self, row: asyncpg.Record, subscription: Subscription, events: Sequence[Event], places: dict[Place, int]
    ) -> bool:
        """What is wanted of a batch goes on its way; false if somebody changed the subscription meanwhile."""
        wanted = [event for event in events if subscription.wants(event)]
        runtime = self._runtime
        async with runtime.database.transaction() as tx:
            if not await queries.still(tx.connection, row):
                return False
            blocks: list[bytes | None] = [None] * len(wanted)
            if subscription.opens:
                sealed: list[Any] = [(event.lead_id, sealed_block(event)) for event in wanted]
                blocks = await runtime.keys.open_many(tx.connection, sealed)
            going = [outgoing(subscription, event, block) for event, block in zip(wanted, blocks, strict=True)]
            await enqueue(tx.connection, runtime.keys, going, await agreed_now(tx.connection, runtime.clock))
            await queries.put_places(tx.connection, subscription.subscription_id, places)
        TOLD.inc(len(wanted))
        return True
