"""What a broadcast would do: who would get it and who is held back, as it is when it is sent."""

from collections.abc import AsyncIterator

import pytest_asyncio

from services.nurture.broadcasts.domain import SAME_ADDRESS
from shared.settings import Settings
from tests.service.nurture_world import World, open_world
from tests.service.test_broadcasts import ANN, BEN, EVE, call, carried_out, drafted, in_segment, shares_address


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_world(settings) as made:
        yield made


async def test_a_dry_run_counts_who_would_get_it_and_who_not_with_examples_and_sends_nothing(world: World) -> None:
    await in_segment(world, ANN, BEN, "twin@example.com")
    await shares_address(world, BEN, "twin@example.com")
    await in_segment(world, EVE, consent=False)
    await world.nurture.client.post("/v1/suppressions", json={"email": ANN})
    for audience in ({"segment": "eu"}, {"where": "lead.first_name != 'Nobody'"}):
        path = await drafted(world, audience=audience)
        report = await call(world, "POST", f"{path}:dry-run", 202)
        people = 4 if "segment" in audience else 3  # of the twin nothing is known but the address
        assert (report["state"], report["people"], report["would_get"]) == ("done", people, 1)
        counted = {row["reason"]: (row["verdict"], row["people"]) for row in report["held_back"]}
        expected = {"suppressed: manual": ("refused", 1), "no consent for email": ("refused", 1)}
        assert counted == expected | ({SAME_ADDRESS: ("refused", 1)} if "segment" in audience else {})
        example = next(row for row in report["held_back"] if row["reason"] == "suppressed: manual")["examples"]
        assert example == [{"lead_id": world.facts.lead_id(ANN), "reason": "suppressed: manual"}]
        assert await call(world, "GET", f"{path}/dry-run") == report
    await world.send()
    assert world.inbox.accepted == []
    async with world.nurture.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM broadcast_members") == 0
        assert await connection.fetchval("SELECT count(*) FROM broadcast_addresses") == 0


async def test_a_dry_run_counts_whom_contact_pressure_would_hold_back_as_it_does_then(world: World) -> None:
    await world.policy(pressure={"limits": [{"messages": 1, "days": 1}]})
    await in_segment(world, ANN, BEN, EVE)
    first = await drafted(world, audience={"leads": [world.facts.lead_id(ANN), world.facts.lead_id(BEN)]})
    await call(world, "POST", f"{first}:start")
    assert (await carried_out(world, first))["progress"]["messages"] == {"sent": 2}
    path = await drafted(world)
    report = await call(world, "POST", f"{path}:dry-run", 202)
    assert (report["people"], report["would_get"]) == (3, 1)
    (row,) = report["held_back"]
    assert (row["verdict"], row["people"]) == ("delayed", 2)
    assert row["reason"].startswith("contact pressure: ")
    await call(world, "POST", f"{path}:start")
    assert (await carried_out(world, path))["progress"]["messages"] == {"sent": 1, "planned": 2}
