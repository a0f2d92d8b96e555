"""Routing on real Kafka: decisions are published, read back, and a rebuild takes none anew."""

import asyncio
from collections import Counter

from shared.events import LeadAssigned
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually
from tests.service.routing_support import Routing, captured, entered, lead_id, routing_service
from tests.service.runtime_world import killed_rebuild
from throughline.services import service_code

LEADS = [f"lead-{number}" for number in range(24)]


async def tell(service: Harness, *names: str) -> None:
    """Publish what scoring and capture would tell, through this service's own log."""
    async with service.runtime.database.transaction() as tx:
        tx.emit(*(captured(name, country="AT") for name in names), *(entered(name) for name in names))


async def owners(routing: Routing) -> Counter[str | None]:
    """How many leads each rep has, once all are given out."""
    found = Counter([await routing.owner(name) for name in LEADS])
    assert None not in found
    return found


async def read_back(routing: Routing) -> bool:
    """Whether all that was published about who has which lead came back from Kafka."""
    async with routing.service.runtime.database.reading() as connection:
        read = await connection.fetchval(
            "SELECT count(DISTINCT event_id) FROM inbox WHERE event_id = ANY($1)",
            [fact.event_id for fact in await routing.service.told(LeadAssigned)],
        )
    return bool(read == len(LEADS))


async def test_leads_are_given_out_published_and_read_back(kafka_settings: Settings) -> None:
    async with routing_service(kafka_settings, kafka=True) as routing:
        reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
        await tell(routing.service, *LEADS)

        assert await eventually(lambda: owners(routing)) == dict.fromkeys(reps, 8)

        await eventually(lambda: read_back(routing))
        assert (await routing.answer(LEADS[0], "accept")).status_code == 200

        equal = await rebuild(service_code("routing"), kafka_settings, lambda _: None)
        assert all(equal.values()), equal
        assert len(await routing.service.told(LeadAssigned)) == len(LEADS)
        assert (await routing.assignment(LEADS[0]))["state"] == "accepted"
        await tell(routing.service, "late")

        async def the_late_one_has_a_rep() -> bool:
            return await routing.owner("late") in reps

        await eventually(the_late_one_has_a_rep)


async def test_several_consumers_share_the_leads_fairly(kafka_settings: Settings) -> None:
    async with routing_service(kafka_settings, kafka=True) as routing:
        reps = [await routing.hire(name) for name in ("ann", "bob")]
        async with routing_service(kafka_settings, kafka=True) as other:
            await asyncio.gather(*(tell(routing.service, *LEADS[start::4]) for start in range(4)))

            assert await eventually(lambda: owners(other)) == dict.fromkeys(reps, 12)
            listed = await other.client.get("/v1/assignments", params={"lead_id": lead_id(LEADS[0])})
            assert len(listed.json()["items"]) == 1


async def test_f32_a_rebuild_killed_twice_while_leads_come_gives_no_lead_out_again_and_the_next_one_is_equal(
    kafka_settings: Settings,
) -> None:
    async with routing_service(kafka_settings, kafka=True) as routing:
        reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
        await tell(routing.service, *LEADS[:8])
        for point, start in (("after_tx_before_kafka_commit", 8), ("before_swap_commit", 12)):
            coming = tell(routing.service, *LEADS[start : start + 4])
            await killed_rebuild(routing.service, kafka_settings, point, coming)
        building = asyncio.create_task(rebuild(service_code("routing"), kafka_settings, lambda _: None))
        await tell(routing.service, *LEADS[16:])
        assert all((await building).values()), building.result()
        assert await eventually(lambda: owners(routing)) == dict.fromkeys(reps, 8)
        await eventually(lambda: read_back(routing))
        before = [await routing.owner(name) for name in LEADS]
        equal = await rebuild(service_code("routing"), kafka_settings, lambda _: None)
        assert all(equal.values()), equal
        assert [await routing.owner(name) for name in LEADS] == before
        assert len(await routing.service.told(LeadAssigned)) == len(LEADS)
        assert await routing.service.parked() == []
