"""What really stands in Kafka is what the documents say."""

from typing import Any

import orjson
import yaml
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from jsonschema import Draft202012Validator

from shared.events import EVENT_OF, TOPICS, WATERMARK_TYPE
from shared.settings import Settings
from shared.testing import eventually, harness
from throughline.contracts.documents import DOCS, SCHEMAS
from throughline.services import service_code

LEAD = {"email": "ada@example.com", "phone": "+441632960960", "anonymous_id": "b-1", "consent": {"email": "granted"}}
TOUCH = {"email": "ada@example.com", "type": "page_view", "url": "https://acme.example/?utm_source=x&q=secret"}
MONEY = {"email": "ada@example.com", "external_id": "o-1", "type": "payment", "value_minor": 500, "currency": "EUR"}
REFUND = {"external_id": "o-1", "refund_id": "r-1", "amount_minor": 100, "currency": "EUR"}
COSTS = {"costs": [{"date": "2026-11-01", "channel": "Paid Search", "amount_minor": 900, "currency": "EUR"}]}
CALLS = (("leads", LEAD), ("touches", TOUCH), ("conversions", MONEY), ("refunds", REFUND), ("costs", COSTS))
TOLD = {
    "throughline.key.created.v1",
    "throughline.lead.captured.v1",
    "throughline.identity.linked.v1",
    "throughline.consent.changed.v1",
    "throughline.touch.recorded.v1",
    "throughline.conversion.recorded.v1",
    "throughline.refund.recorded.v1",
    "throughline.cost.recorded.v1",
}


async def test_records_are_cloud_events_by_their_schemas(kafka_settings: Settings) -> None:
    prefix = kafka_settings.topic_prefix
    consumer = AIOKafkaConsumer(
        *(prefix + topic.name for topic in TOPICS),
        bootstrap_servers=kafka_settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        group_id=None,
    )
    await consumer.start()
    try:
        async with harness(service_code("capture"), kafka_settings, kafka=True) as capture:
            for path, body in CALLS:
                assert (await capture.client.post(f"/v1/{path}", json=body)).is_success
            records: dict[str, list[ConsumerRecord]] = {}

            async def all_told() -> bool:
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    for record in batch:
                        records.setdefault(dict(record.headers)["ce_type"].decode(), []).append(record)
                return records.keys() >= {*TOLD, WATERMARK_TYPE}

            await eventually(all_told)
    finally:
        await consumer.stop()
    for kind, found in records.items():
        for record in found:
            _assert_as_documented(kind, record, prefix)
    everything = b"".join(record.value for found in records.values() for record in found)
    assert not [word for word in (b"ada@", b"1632960960", b"secret", b'"b-1"') if word in everything]


def _assert_as_documented(kind: str, record: ConsumerRecord, prefix: str) -> None:
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    messages: dict[str, Any] = {each["name"]: each for each in document["components"]["messages"].values()}
    headers = {name: value.decode() for name, value in record.headers}
    value = orjson.loads(record.value)
    name = EVENT_OF[kind].__name__ if kind in EVENT_OF else "Watermark"
    assert name in document["channels"][record.topic.removeprefix(prefix)]["messages"]
    assert headers["ce_specversion"] == "1.0"
    assert headers["content-type"] == "application/json"
    assert all(headers.values()), "CloudEvents knows no empty attribute"
    if kind == WATERMARK_TYPE:
        assert value.keys() == messages[kind]["payload"]["properties"].keys()
        Draft202012Validator(messages[kind]["headers"]).validate(headers)
        Draft202012Validator(messages[kind]["payload"]).validate(value)
        return
    Draft202012Validator(document["components"]["messageTraits"]["CloudEvent"]["headers"]).validate(headers)
    Draft202012Validator(orjson.loads((SCHEMAS / f"{kind}.json").read_bytes())).validate(value)
    fact = EVENT_OF[kind].decode(record.value)
    assert record.key.decode() == fact.key
    assert (headers["ce_id"], headers.get("ce_subject", "")) == (fact.event_id, fact.lead_id)
    assert headers["ce_dataschema"] == f"urn:throughline:{kind}"
    assert fact.position > 0
