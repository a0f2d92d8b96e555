"""A person's rights over real Kafka and the real consumers of all five services."""

from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.events import EVENT_OF, TOPICS
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import eventually
from tests.service.company import company

CANARY = "Zyxwvut"
EMAIL = f"{CANARY}.person@example.com"
LEAD = {
    "email": EMAIL,
    "phone": "+441632960999",
    "first_name": CANARY,
    "last_name": CANARY,
    "title": CANARY,
    "anonymous_id": f"browser-{CANARY}",
    "attributes": {"note": CANARY},
    "consents": [
        {
            "channel": "email",
            "state": "granted",
            "evidence": {"method": "form", "text": f"I, {CANARY}, agree", "ip": "203.0.113.77"},
        }
    ],
    "touch": {"type": "form_submitted", "properties": {"p": CANARY}, "url": f"https://a.example/?q={CANARY}"},
}
TRACES = (CANARY.lower().encode(), b"1632960999", b"203.0.113.77")


async def test_an_export_and_a_receipt_come_about_and_nothing_personal_stands_in_any_topic(
    kafka_settings: Settings,
) -> None:
    async with company(kafka_settings, kafka=True) as everybody:
        capture = everybody.capture
        lead = await capture.lead(**LEAD)
        for kind in ("page_view", "demo_requested"):
            touch = {"email": EMAIL, "type": kind, "url": f"https://a.example/?q={CANARY}"}
            assert (await capture.post("touches", touch)).status_code == 202
        scoring = everybody.services["scoring"].client

        async def scored() -> bool:
            answer = await scoring.get(f"/v1/leads/{lead['lead_id']}")
            return answer.status_code == 200 and answer.json()["engagement"] > 0

        await eventually(scored, within=60)
        asked = (await capture.post(f"leads/{lead['lead_id']}:export", None)).json()

        async def exported() -> dict[str, Any]:
            export = (await capture.get(f"person-exports/{asked['export_id']}")).json()
            assert export["state"] == "done", export["services"]
            return dict(export["held"])

        held = await eventually(exported, within=90)
        assert CANARY in str(held["capture"]) and CANARY in str(held["scoring"])
        opened = (await capture.post(f"leads/{lead['lead_id']}:erase", {"reason": "asked"})).json()

        async def done() -> bool:
            receipt = (await capture.get(f"erasures/{opened['receipt_id']}")).json()
            assert receipt["state"] == "done", receipt["services"]
            return True

        await eventually(done, within=60)
        records = await everything(kafka_settings)
        assert {topic for topic, _, _ in records} >= {"leads", "touches", "keys", "erasures", "exports"}
        assert [(topic, trace) for topic, _, raw in records for trace in TRACES if trace in raw.lower()] == []
        blocks: list[tuple[LeadId, str | None]] = [
            (LeadId(value["lead_id"]), value["personal"]) for _, value, _ in records if value and "personal" in value
        ]
        assert len(blocks) > 5
        for service in ("capture", "scoring", "routing", "nurture"):
            runtime = everybody.services[service].consumer_runtime
            async with runtime.database.reading() as connection:
                assert await runtime.keys.open_many(connection, blocks) == [None] * len(blocks)


async def everything(settings: Settings) -> list[tuple[str, dict[str, Any] | None, bytes]]:
    """Every record of every topic: its topic, its value where it is a fact, and all its bytes."""
    prefix = settings.topic_prefix
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, group_id=None)
    await consumer.start()
    records: list[tuple[str, dict[str, Any] | None, bytes]] = []
    try:
        places = [
            TopicPartition(prefix + topic.name, number)
            for topic in TOPICS
            for number in range(settings.topic_partitions)
        ]
        consumer.assign(places)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for place, batch in (await consumer.getmany(timeout_ms=200)).items():
                for record in batch:
                    kind = dict(record.headers)["ce_type"].decode()
                    value = orjson.loads(record.value) if kind in EVENT_OF and record.value else None
                    raw = b" ".join([record.key or b"", record.value or b"", *(held for _, held in record.headers)])
                    records.append((place.topic.removeprefix(prefix), value, raw))
    finally:
        await consumer.stop()
    return records
