"""Clients of Kafka that nobody waits for any more leave nothing open."""

import asyncio
import gc
import warnings
from contextlib import suppress

from shared.kafka import probe
from shared.settings import Settings


async def test_a_client_that_is_broken_off_while_it_starts_leaves_no_connection(kafka_settings: Settings) -> None:
    async def look() -> None:
        async with probe(kafka_settings.kafka_bootstrap_servers):
            await asyncio.Event().wait()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for turns in range(0, 6_000, 50):  # of the loop: wherever a start stands then
            looking = asyncio.create_task(look())
            for _ in range(turns):
                await asyncio.sleep(0)
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        gc.collect()
    assert not [str(one.message) for one in seen if "AIOKafka" in str(one.message)]
