"""Stages that change by time alone: at their own instant, once, whatever happens to workers and clocks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.scoring.parts import make_parts
from services.scoring.stages.due import settle_due
from services.scoring.stages.handlers import PAGE, settle
from services.scoring.stages.queries import claim_due
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.events import StageChanged
from shared.settings import Settings
from shared.testing import FrozenClock, Harness, harness
from tests.service.scoring_world import DAY, NOW, World
from throughline.services import service_code

COLD = timedelta(days=30 * 0.514573172829758)  # log2(50 / 35) half-lives of 30 days
SECOND = timedelta(seconds=1)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def changes(world: World, lead_id: str) -> list[tuple[str, datetime]]:
    told = [one for one in await world.scoring.told(StageChanged) if one.lead_id == lead_id]
    assert [one.revision for one in told] == sorted({one.revision for one in told})
    return [(one.stage, one.occurred_at) for one in told]


async def test_a_demotion_is_told_at_its_own_instant_however_late_anybody_looks(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"))
    world.clock.move(400 * DAY)
    await world.scoring.run_timers()
    (entered, began), (left, ended) = await changes(world, "lead")
    assert (entered, began, left) == ("mql", NOW, "lead")
    assert abs(ended - (NOW + COLD)) < SECOND
    assert (await world.score("lead"))["stage_since"] == ended.isoformat().replace("+00:00", "Z")


async def test_what_was_due_before_a_fact_is_told_before_it(world: World) -> None:
    for lead_id in ("touched", "captured"):
        await world.tell(world.touch(lead_id, "demo_requested"))
    world.clock.move(20 * DAY)
    await world.tell(world.touch("touched", "demo_requested", NOW + 20 * DAY))
    await world.tell(world.consent("captured", at=NOW + 20 * DAY))
    first, second, third = await changes(world, "touched")
    assert (first[0], second[0], third) == ("mql", "lead", ("mql", NOW + 20 * DAY))
    assert abs(second[1] - (NOW + COLD)) < SECOND
    assert [stage for stage, _ in await changes(world, "captured")] == ["mql", "lead"]
    assert abs((await changes(world, "captured"))[1][1] - (NOW + COLD)) < SECOND


async def test_workers_that_are_killed_and_clocks_that_step_neither_lose_nor_repeat_a_change(
    world: World, settings: Settings
) -> None:
    """Forty leads go cold one after the other; the host's clock runs back and forth, and two workers die and race."""
    started = {f"lead-{place}": NOW - timedelta(hours=place) for place in range(40)}
    await world.tell(*(world.touch(lead_id, "demo_requested", at) for lead_id, at in started.items()))
    async with AsyncExitStack() as stack:
        twin = await stack.enter_async_context(harness(service_code("scoring"), settings, clock=world.clock))
        for step in (COLD - 20 * timedelta(hours=1), -10 * DAY, 12 * DAY, -12 * DAY, 10 * DAY, 3 * DAY, -DAY, 4 * DAY):
            world.clock.move(step)
            await killed_before_it_commits(world.scoring)
            await asyncio.gather(world.scoring.run_timers(), twin.run_timers())
            await world.tell(world.consent("lead-0", at=world.clock.now()))
    for lead_id, at in started.items():
        (_, began), (left, ended) = await changes(world, lead_id)
        assert began in (at, NOW)  # told late where the touch was more than an hour old
        assert left == "lead" and abs(ended - (at + COLD)) < SECOND


async def test_what_is_due_of_several_pages_is_told_once_though_two_workers_take_pages_at_once(
    world: World, settings: Settings
) -> None:
    leads = [f"lead-{place}" for place in range(3 * PAGE + 50)]
    await world.tell(*(world.touch(lead_id, "demo_requested") for lead_id in leads))
    world.clock.move(20 * DAY)
    async with harness(service_code("scoring"), settings, clock=world.clock) as twin:
        await asyncio.gather(
            *(
                settle_due(one.consumer_runtime.database, make_parts(one.consumer_runtime))
                for one in (world.scoring, twin)
            )
        )
    told = Counter((fact.lead_id, fact.stage) for fact in await world.scoring.told(StageChanged))
    assert told == dict.fromkeys(((lead_id, stage) for lead_id in leads for stage in ("mql", "lead")), 1)


async def killed_before_it_commits(service: Harness) -> None:
    """A worker judges all that is due, and its connection ends where a killed process would have ended it."""
    parts, database = make_parts(service.consumer_runtime), service.consumer_runtime.database
    with pytest.raises(Unavailable):
        async with database.transaction() as tx:
            due = await claim_due(tx.connection, parts.clock.now(), 500)
            await settle(tx, parts, {one: f"due:{at}" for one, at in due.items()}, replan=True, due=True)
            pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
            async with service.runtime.database.reading() as connection:
                await connection.execute("SELECT pg_terminate_backend($1)", pid)


async def test_a_condition_that_computes_turns_on_time(world: World) -> None:
    document: dict[str, Any] = {
        "engagement": {"rules": [{"id": "demo", "when": "event.type == 'demo'", "points": 50}]},
        "stages": [{"stage": "mql", "when": "score.engagement * 2.0 > 90.0"}],
    }
    await world.put_rules(document)
    await world.tell(world.touch("lead", "demo"))
    world.clock.move(30 * DAY)
    await world.scoring.run_timers()
    _, (left, at) = await changes(world, "lead")
    assert left == "subscriber"
    assert abs(at - (NOW + 30 * DAY * 0.15200309344504997)) < SECOND  # log2(50 / 45)


class Ahead(SystemClock):
    """A host's clock that is two days ahead."""

    def now(self) -> datetime:
        return super().now() + 2 * DAY


async def test_a_host_whose_clock_is_wrong_demotes_nobody_early(settings: Settings) -> None:
    async with harness(service_code("scoring"), settings, clock=Ahead()) as service:
        world = World(service, FrozenClock(NOW))
        document: dict[str, Any] = {
            "engagement": {"half_life_days": 1, "rules": [{"id": "x", "when": "event.type == 'x'", "points": 50}]},
            "stages": [{"stage": "mql", "when": "score.engagement >= 35"}],
        }
        await world.put_rules(document)
        await world.tell(world.touch("lead", "x", datetime.now(UTC)))
        parts = make_parts(service.consumer_runtime)
        wait = await settle_due(service.consumer_runtime.database, parts)
        assert [stage for stage, _ in await changes(world, "lead")] == ["mql"]
        assert wait is not None and timedelta(hours=11) < wait < timedelta(hours=13)


async def test_stages_never_go_back_in_time_when_a_clock_does(world: World) -> None:
    document: dict[str, Any] = {
        "engagement": {"rules": [{"id": "demo", "when": "event.type == 'demo'", "points": 50}]},
        "stages": [{"stage": "mql", "when": "score.engagement >= 45"}],
    }
    await world.put_rules(document)
    await world.tell(world.touch("lead", "demo"))
    world.clock.move(20 * DAY)
    await world.scoring.run_timers()
    world.clock.move(-18 * DAY)
    await world.tell(world.consent("lead", at=world.clock.now()))
    await world.scoring.run_timers()
    assert [stage for stage, _ in await changes(world, "lead")] == ["mql", "subscriber"]


@pytest.mark.parametrize("kind", ["page_view", "demo_requested"])
async def test_a_late_touch_counts_from_when_it_happened(world: World, kind: str) -> None:
    await world.tell(world.touch("lead", kind, NOW - 60 * DAY))
    assert [stage for stage, _ in await changes(world, "lead")] == ([] if kind == "page_view" else ["lead"])
