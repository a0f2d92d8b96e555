"""Scores follow from the set of facts: in whatever order, batches and repetitions they arrive."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from services.scoring.parts import make_parts
from services.scoring.people.handlers import make_anew, make_anew_everywhere
from shared.db import TRANSIENT, Tx
from shared.errors import Unavailable
from shared.events import Event, StageChanged
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.conftest import DatabaseServer
from tests.service.runtime_world import anybody_waits
from tests.service.scoring_world import BROWSERS, DAY, NOW, PEOPLE, World, random_history
from throughline.services import service_code


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


def in_batches(facts: Sequence[Event], dice: random.Random) -> list[list[Event]]:
    rest, batches = list(facts), []
    while rest:
        size = dice.randrange(1, 20)
        batches.append(rest[:size])
        rest = rest[size:]
    return batches


async def answers(world: World) -> list[Any]:
    found = []
    for lead_id in (*(world.lead_id(email) for email in PEOPLE), *BROWSERS):
        response = await world.scoring.client.get(f"/v1/leads/{lead_id}")
        body = response.json()
        for changing in ("stage_reason", "stage_since", "furthest_stage"):
            body.pop(changing, None)  # these tell the way that was taken, which differs
        found.append(body)
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_arrival_gives_the_same_rows_and_answers(
    settings: Settings, database_server: DatabaseServer, template_database: str, seed: int
) -> None:
    facts: list[Event] = []
    keys: list[tuple[str, str]] = []
    seen = []
    for attempt in range(3):
        url = database_server.make(f"order_{uuid.uuid4().hex}", template_database)
        dice = random.Random(seed * 100 + attempt)
        own = settings.model_copy(update={"database_url": SecretStr(url)})
        async with harness(service_code("scoring"), own, clock=FrozenClock(NOW)) as service:
            world = World(service, FrozenClock(NOW))
            if attempt == 0:
                facts = await random_history(world, dice, 30)
                keys = await stored_keys(world)
                batches = in_batches(facts, dice)
            else:
                await keep_keys(world, keys)
                shuffled = dice.sample(facts, len(facts))
                batches = [[*batch, dice.choice(batch)] for batch in in_batches(shuffled, dice)]
                batches += in_batches(dice.sample(facts, 10), dice)
            for batch in batches:
                await world.tell(*batch)
            await service.run_timers()
            assert await service.parked() == []
            seen.append((await world.projection(), await answers(world)))
    for rows, told in seen[1:]:
        assert rows == seen[0][0]
        assert told == seen[0][1]


async def stored_keys(world: World) -> list[tuple[str, str]]:
    async with world.scoring.runtime.database.reading() as connection:
        return [tuple(row) for row in await connection.fetch("SELECT lead_id, wrapped_key FROM person_keys")]


async def keep_keys(world: World, keys: Sequence[tuple[str, str]]) -> None:
    async with world.scoring.runtime.database.reading() as connection:
        await connection.executemany("INSERT INTO person_keys (lead_id, wrapped_key) VALUES ($1, $2)", keys)


async def test_several_consumers_at_once_lose_and_double_nothing(world: World) -> None:
    """Two consumers never share a partition, but a merge, a link and touches of one person lie in different ones."""
    dice = random.Random(7)
    facts = await random_history(world, dice, 120)
    batches = in_batches(facts, dice)

    async def consume(share: Sequence[list[Event]]) -> None:
        for batch in share:
            while True:
                try:
                    await world.scoring.deliver(*batch)
                    break
                except (Unavailable, *TRANSIENT):
                    continue

    await asyncio.gather(*(consume(batches[start::4]) for start in range(4)))
    assert await world.scoring.parked() == []
    rows = await world.projection()
    parts = make_parts(world.scoring.consumer_runtime)
    async with world.scoring.consumer_runtime.database.transaction() as tx:
        rules = await parts.rules.current(tx.connection)
        every_id = [*(world.lead_id(email) for email in PEOPLE), *map(LeadId, BROWSERS)]
        await make_anew(tx.connection, parts, every_id, rules)
    assert await world.projection() == rows


async def fold_only(world: World, event: Event, tx: Tx) -> None:
    """The folds of a fact, in a transaction that stays open."""
    for route in world.scoring.code.routes(world.scoring.consumer_runtime):
        if route.event_type is type(event) and not route.decides:
            await route.handle([event], tx)


@pytest.mark.parametrize("first", ["merge", "touch"])
@pytest.mark.parametrize("known", [True, False])
async def test_a_touch_that_meets_a_merge_under_way_counts_for_the_survivor(
    world: World, first: str, known: bool
) -> None:
    a, b = world.lead_id(PEOPLE[0]), world.lead_id(PEOPLE[1])
    if known:
        await world.tell(world.touch(b, "email_opened"), world.touch(a, "email_opened"))
    facts: list[Event] = [world.merged(b, a), world.touch(b, "form_submitted")]
    under_way, then = facts if first == "merge" else facts[::-1]
    async with world.scoring.consumer_runtime.database.transaction() as tx:
        await fold_only(world, under_way, tx)
        other = asyncio.create_task(world.tell(then))
        await eventually(lambda: anybody_waits(world.scoring.runtime.database))
    await other
    assert ((await world.score(b))["lead_id"], (await world.score(b))["engagement"]) == (a, 25)
    async with world.scoring.runtime.database.reading() as connection:
        assert [row["person_id"] for row in await connection.fetch("SELECT person_id FROM scores")] == [a]


async def test_f31_what_is_parked_of_a_lead_that_is_merged_counts_for_the_survivor_once_it_is_carried_out(
    world: World,
) -> None:
    a, b = world.lead_id(PEOPLE[0]), world.lead_id(PEOPLE[1])
    broken = (await world.captured(PEOPLE[1])).model_copy(update={"personal": "AAAA"})
    await world.tell(broken)
    await world.tell(world.touch(b, "form_submitted"), world.touch(a, "page_view"))
    await world.tell(world.merged(b, a))
    parked = await world.scoring.parked()
    assert parked[0]["event_id"] == broken.event_id
    assert [each["rule_id"] for each in (await world.score(b))["contributions"]] == ["page-view"]
    late = world.touch(b, "demo_requested", NOW - DAY)
    await world.tell(late)
    assert await world.scoring.discard_parked(broken)
    assert await world.scoring.parked() == []
    found = await world.score(a)
    assert {each["rule_id"] for each in found["contributions"]} == {"page-view", "form-submitted", "demo-requested"}
    rows = await world.projection()
    async with world.scoring.consumer_runtime.database.transaction() as tx:
        parts = make_parts(world.scoring.consumer_runtime)
        await make_anew_everywhere(tx, parts, [a])
    assert (await world.projection(), await world.score(b)) == (rows, found)


async def test_a_link_gives_a_browser_its_person_by_time(world: World) -> None:
    anna, bert = world.lead_id(PEOPLE[0]), world.lead_id(PEOPLE[1])
    await world.tell(*(world.touch("browser-1", "form_submitted", NOW - days * DAY) for days in (10, 5, 1)))
    assert len((await world.score("browser-1"))["contributions"]) == 3
    await world.tell(world.linked("browser-1", anna, NOW - 7 * DAY))
    assert len((await world.score(anna))["contributions"]) == 3
    assert (await world.score("browser-1"))["lead_id"] == anna
    await world.tell(world.linked("browser-1", bert, NOW - 2 * DAY))
    assert len((await world.score(anna))["contributions"]) == 2
    assert len((await world.score(bert))["contributions"]) == 1
    late = world.touch("browser-1", "form_submitted", NOW - 3 * DAY)
    await world.tell(late)
    assert len((await world.score(anna))["contributions"]) == 3


async def test_a_merge_shares_limits_and_an_unmerge_gives_everything_back(world: World) -> None:
    a, b = world.lead_id(PEOPLE[0]), world.lead_id(PEOPLE[1])
    views = [world.touch(who, "page_view", NOW - timedelta(minutes=n)) for n in range(8) for who in (a, b)]
    await world.tell(
        *views, await world.captured(PEOPLE[0], employees=200), await world.captured(PEOPLE[1], country="AT")
    )
    before = [await world.score(a), await world.score(b)]
    await world.tell(world.merged(b, a))
    merged = await world.score(a)
    assert (await world.score(b)) == merged
    assert sum(one["rule_id"] == "page-view" for one in merged["contributions"]) == 10, "ten a day for both together"
    assert merged["fit"] == 25, "what either profile knows"
    await world.tell(world.touch(b, "page_view", NOW - timedelta(minutes=99)))
    after_late = await world.score(a)
    assert sum(one["rule_id"] == "page-view" for one in after_late["contributions"]) == 10
    assert after_late["contributions"][-1]["occurred_at"] == "2026-11-20T10:21:00Z", "the earliest ten"
    await world.tell(world.unmerged(b, a))
    again = [await world.score(a), await world.score(b)]
    assert again[0] == before[0]
    assert len(again[1]["contributions"]) == len(before[1]["contributions"]) + 1


async def test_the_survivor_of_a_merge_keeps_a_stage_that_either_had_reached(world: World) -> None:
    a, b = world.lead_id(PEOPLE[0]), world.lead_id(PEOPLE[1])
    await world.tell(world.touch(b, "demo_requested", NOW - 14 * DAY))
    await world.tell(world.touch(a, "form_submitted", NOW - 40 * DAY))
    assert (await world.score(b))["stage"] == "mql"
    await world.tell(world.merged(b, a))
    assert (await world.score(a))["stage"] == "mql"
    assert [one.lead_id for one in await world.scoring.told(StageChanged) if one.stage == "mql"] == [b, a]
    await world.tell(world.unmerged(b, a))
    assert ((await world.score(a))["stage"], (await world.score(b))["stage"]) == ("lead", "mql")


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_an_assignment_told_anew_after_merges_is_its_first_leads_in_any_order(
    world: World, order: tuple[int, ...]
) -> None:
    one, two, three = (world.lead_id(who) for who in PEOPLE)
    for who in (one, two, three):
        await world.tell(world.touch(who, "demo_requested"))
    await world.tell(world.merged(one, two), world.merged(two, three), world.assigned(three, "other", 3))
    told = [world.assigned(one, "a"), world.assigned(two, "a", 2), world.assigned(three, "a", 4)]
    for place in order:
        await world.tell([*told, world.accepted(one, "a")][place])
    assert (await world.score(three))["stage"] == "sal"
    (first, _) = (await world.projection())["assignments"]
    assert [first[0]] == [f'(a,{one},4,accepted,"2026-11-20 12:00:00+00",0)']
    await world.tell(world.unmerged(one, two, NOW + timedelta(minutes=1)))
    assert [(await world.score(who))["stage"] for who in (one, three)] == ["sal", "mql"]


async def test_tellings_of_an_assignment_in_one_batch_count_as_one_after_the_other(world: World) -> None:
    one, two = world.lead_id(PEOPLE[0]), world.lead_id(PEOPLE[1])
    await world.tell(world.touch(one, "demo_requested"), world.merged(one, two))
    await world.tell(world.assigned(two, "a", 4), world.assigned(one, "a"), world.assigned(two, "b", 3))
    rows = [row[0] for row in (await world.projection())["assignments"]]
    assert rows == [f"(a,{one},4,offered,,1)", f"(b,{two},3,offered,,3)"]
