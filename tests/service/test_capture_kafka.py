"""Capture on real Kafka: deliveries travel through it and back, and without it facts are taken all the same."""

from shared.events import DeliveryReceived, LeadCaptured, TouchRecorded
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.capture_world import Capture
from throughline.services import service_code

ANN = "ann@example.com"


async def test_a_delivery_travels_through_kafka_and_is_a_lead_once(kafka_settings: Settings) -> None:
    async with harness(service_code("capture"), kafka_settings, kafka=True) as made:
        capture = Capture(made)
        source = await capture.source()
        for _ in range(2):
            answer = await capture.hook(source, {"email": ANN, "first_name": "Ann", "idempotency_key": "s-1"})
            assert answer.status_code == 200

        async def ann() -> dict[str, object]:
            items = (await capture.get("leads", email=ANN)).json()["items"]
            assert len(items) == 1
            return dict(items[0])

        assert (await eventually(ann))["first_name"] == "Ann"

        async def own_facts_are_read_back() -> bool:
            told = await made.told(LeadCaptured)
            read = await capture.rows("SELECT 1 FROM inbox WHERE event_id = ANY($1)", [each.event_id for each in told])
            return len(read) == len(told) == 1

        await eventually(own_facts_are_read_back)
        assert len(await made.told(DeliveryReceived)) == 2
        assert len(await made.told(TouchRecorded)) == 1
        assert await made.parked() == []


async def test_facts_and_deliveries_are_taken_while_kafka_is_away_and_mapped_afterwards(
    kafka_settings: Settings,
) -> None:
    away = kafka_settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    async with harness(service_code("capture"), away) as made:
        capture = Capture(made)
        source = await capture.source()
        assert (await capture.hook(source, {"email": ANN})).status_code == 200
        assert (await capture.post("touches", {"email": ANN, "type": "page_view"})).status_code == 202
    async with harness(service_code("capture"), kafka_settings, kafka=True) as made:
        capture = Capture(made)

        async def ann_is_known() -> bool:
            return len((await capture.get("leads", email=ANN)).json()["items"]) == 1

        await eventually(ann_is_known)
