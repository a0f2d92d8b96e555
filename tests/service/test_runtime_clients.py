"""Clients of Kafka that nobody waits for any more leave nothing open."""

import asyncio
import gc
import os
import signal
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.embedded.processes import running
from shared.kafka import Probe, apply_topics, probe
from shared.settings import Settings
from tests.service.runtime_world import own_broker, touch
from tests.service.test_runtime_consumer import all_applied, consuming, tell, world


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


async def test_what_follows_a_record_that_was_looked_for_is_not_read(kafka_settings: Settings) -> None:
    servers = kafka_settings.kafka_bootstrap_servers
    topic = f"{kafka_settings.topic_prefix}touches"
    places = [TopicPartition(topic, number) for number in range(kafka_settings.topic_partitions)]
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for place in places:
            sent = await producer.send(topic, b"{}", partition=place.partition, headers=[("ce_id", b"first")])
            assert (await sent).offset == 0
    async with AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False) as consumer:
        assert await Probe(consumer).missing(dict.fromkeys(places, (0, "first"))) == set()
        assert consumer.paused() == set(places)


async def test_nothing_goes_on_behind_a_consumer_and_a_relay_that_end_while_the_broker_is_frozen(
    settings: Settings, tmp_path: Path
) -> None:
    node, own = own_broker(settings, tmp_path / "kafka", "frozen.")
    unheard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: unheard.append(context))
    with running(node, tmp_path / "log") as broker:
        await apply_topics(own)
        before = asyncio.all_tasks()
        async with world(own) as runtime, consuming(own):
            told = await tell(runtime, [touch()])
            await all_applied(runtime, told)
            os.kill(broker.pid, signal.SIGSTOP)
            await tell(runtime, (touch() for _ in range(100)))
        assert asyncio.all_tasks() == before
        open_connections = psutil.Process().net_connections(kind="inet")
        assert not [one for one in open_connections if getattr(one.raddr, "port", None) == node.port]
        os.kill(broker.pid, signal.SIGCONT)
    gc.collect()
    await asyncio.sleep(0)
    assert unheard == []
