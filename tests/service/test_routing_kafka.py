"""Routing on real Kafka: decisions are published, read back, and a rebuild takes none anew."""

import asyncio
from collections import Counter

from shared.events import LeadAssigned
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually
from tests.service.routing_support import captured, entered, lead_id, routing_service
from throughline.services import service_code

LEADS = [f"lead-{number}" for number in range(24)]


async def tell(service: Harness, *names: str) -> None:
    """Publish what scoring and capture would tell, through this service's own log."""
    async with service.runtime.database.transaction() as tx:
        tx.emit(*(captured(name, country="AT") for name in names), *(entered(name) for name in names))


async def test_leads_are_given_out_published_and_read_back(kafka_settings: Settings) -> None:
    async with routing_service(kafka_settings, kafka=True) as routing:
        reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
        await tell(routing.service, *LEADS)

        async def all_have_a_rep() -> Counter[str | None]:
            owners = Counter([await routing.owner(name) for name in LEADS])
            assert None not in owners
            return owners

        assert await eventually(all_have_a_rep) == dict.fromkeys(reps, 8)

        async def read_back() -> bool:
            async with routing.service.runtime.database.reading() as connection:
                read = await connection.fetchval(
                    "SELECT count(*) FROM inbox WHERE event_id = ANY($1)",
                    [fact.event_id for fact in await routing.service.told(LeadAssigned)],
                )
            return bool(read == len(LEADS))

        await eventually(read_back)
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

            async def all_have_a_rep() -> Counter[str | None]:
                owners = Counter([await other.owner(name) for name in LEADS])
                assert None not in owners
                return owners

            assert await eventually(all_have_a_rep) == dict.fromkeys(reps, 12)
            listed = await other.client.get("/v1/assignments", params={"lead_id": lead_id(LEADS[0])})
            assert len(listed.json()["items"]) == 1
