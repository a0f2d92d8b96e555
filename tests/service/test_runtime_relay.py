"""From the event log to Kafka: all of it, in order, again after a loss, and by one relay at a time."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.clock import SystemClock
from shared.db import API_LOG, CONSUMER_LOG
from shared.events import TOPICS, TouchRecorded
from shared.outbox import Relay
from shared.service import Runtime
from shared.settings import Settings
from shared.telemetry import new_trace, set_trace
from shared.testing import eventually
from tests.service.runtime_world import SERVICE, beside, drafts, execute, fetch, lead_names, runtime_of, touch, value

WRITTEN = [topic.name for topic in TOPICS if SERVICE in topic.writers]


def relay_of(runtime: Runtime) -> Relay:
    return Relay(runtime.settings, runtime.database, SystemClock(), SERVICE)


async def records(settings: Settings, topic: str) -> list[Any]:
    """All that Kafka holds in a topic, watermarks among it."""
    places = [TopicPartition(settings.topic_prefix + topic, number) for number in range(settings.topic_partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: list[Any] = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found.extend(batch)
    finally:
        await consumer.stop()
    return sorted(found, key=lambda record: (record.partition, record.offset))


def headers(record: Any) -> dict[str, str]:
    return {name: content.decode() for name, content in record.headers}


async def published(settings: Settings, topic: str = "touches") -> list[str]:
    """The ids of the facts in a topic."""
    found = [headers(record)["ce_id"] for record in await records(settings, topic)]
    return [event_id for event_id in found if not event_id.startswith("watermark")]


async def caught_up(runtime: Runtime) -> None:
    """Wait until the relay has published all of both logs."""
    behind = """
    SELECT count(*) FROM event_log JOIN relay_cursors USING (log) WHERE event_log.position > relay_cursors.position
    """
    await eventually(lambda: _is_zero(runtime, behind))


async def _is_zero(runtime: Runtime, statement: str) -> bool:
    return bool(await value(runtime.database, statement) == 0)


async def tell(runtime: Runtime, *events: TouchRecorded) -> None:
    async with runtime.database.transaction() as tx:
        tx.emit(*events)


async def test_everything_of_both_logs_is_published_in_order_by_lead(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as api, runtime_of(kafka_settings) as consumer:
        leads = lead_names(5)
        sent = [touch(lead) for _ in range(300) for lead in leads]
        await tell(api, *sent)
        derived = [touch(lead) for lead in leads]
        await tell(consumer, *derived)
        async with beside(relay_of(api).run()):
            await caught_up(api)
        found = await records(kafka_settings, "touches")
        facts = [record for record in found if headers(record)["ce_type"] == TouchRecorded.ce_type]
        assert {headers(record)["ce_id"] for record in facts} == {event.event_id for event in [*sent, *derived]}
        assert len(facts) == len(sent) + len(derived)
        for lead in leads:
            mine = [headers(record)["ce_id"] for record in facts if record.key.decode() == lead]
            assert [each for each in mine if each != derived[leads.index(lead)].event_id] == [
                event.event_id for event in sent if event.lead_id == lead
            ]
