"""What is decided about somebody at the moment at which a merge makes them another: one run, and each step once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from services.nurture.consumer import routes
from shared.events import Event
from shared.settings import Settings
from shared.testing import eventually
from tests.service.nurture_world import NOW, World, open_world

ANN = "ann@example.com"
BEN = "ben@example.com"
SOMEBODY_WAITS = """
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
)
"""


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_world(settings) as made:
        yield made


async def told_at_once(world: World, first: Event, second: Event) -> None:
    """A replica carries out the second fact when another has carried out the first and has not committed yet."""
    runtime = world.nurture.consumer_runtime
    async with runtime.database.transaction() as tx, world.nurture.runtime.database.reading() as watching:
        for route in routes(runtime):
            if route.event_type is type(first):
                await route.handle([first], tx)
        await tx.make_up()
        other = asyncio.create_task(world.tell(second))

        async def is_over_or_waits() -> bool:
            return other.done() or bool(await watching.fetchval(SOMEBODY_WAITS))

        await eventually(is_over_or_waits)
    await other


@pytest.mark.parametrize("merge_first", [False, True])
async def test_who_enters_a_sequence_while_they_are_merged_into_somebody_in_it_has_one_run(
    world: World, merge_first: bool
) -> None:
    await world.arrives(ANN)
    await world.tell(await world.facts.captured(BEN), world.facts.consent(BEN))
    facts = [world.facts.form(BEN), world.facts.merged(BEN, into=ANN)]
    await told_at_once(world, *(facts[::-1] if merge_first else facts))
    assert await world.nurture.parked() == []
    assert [run["state"] for run in await world.runs(ANN)].count("active") == 1
    for _ in range(2):
        await world.send()
        await world.time_passes(timedelta(days=3))
    assert len(world.inbox.accepted) == 2


@pytest.mark.parametrize("unmerge_first", [False, True])
async def test_who_enters_a_sequence_while_their_merge_is_undone_has_one_run(world: World, unmerge_first: bool) -> None:
    await world.tell(await world.facts.captured(ANN), await world.facts.captured(BEN))
    await world.tell(world.facts.consent(ANN), world.facts.consent(BEN), world.facts.merged(BEN, into=ANN))
    facts = [world.facts.form(BEN), world.facts.unmerged(BEN, into=ANN)]
    await told_at_once(world, *(facts[::-1] if unmerge_first else facts))
    assert await world.nurture.parked() == []
    runs = [len(await world.runs(email)) for email in (ANN, BEN)]
    assert runs == ([0, 1] if unmerge_first else [1, 0])


async def test_f31_what_is_parked_of_a_lead_that_is_merged_is_the_survivors_once_it_is_carried_out(
    world: World,
) -> None:
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    broken = (await world.facts.captured(BEN)).model_copy(update={"personal": "AAAA"})
    await world.tell(broken, world.facts.form(BEN), world.facts.merged(BEN, into=ANN))
    assert (await world.nurture.parked())[0]["event_id"] == broken.event_id
    assert await world.runs(ANN) == []
    late = world.facts.consent(BEN, "denied", at=NOW - timedelta(days=9))
    await world.tell(late, world.facts.form(BEN))
    assert len(await world.nurture.parked()) == 3, "no word about consent waits behind it"
    assert await world.nurture.discard_parked(broken)
    assert await world.nurture.parked() == []
    assert [run["state"] for run in await world.runs(ANN)] == ["active"]
    assert await world.runs(BEN) == await world.runs(ANN)
    await world.send()
    assert len(world.inbox.subjects(ANN)) == 1
    await world.tell(world.facts.unmerged(BEN, into=ANN), world.facts.merged(BEN, into=ANN))
    await world.send()
    assert len(world.inbox.accepted) == 1
    assert [run["state"] for run in await world.runs(ANN)].count("active") == 1
