"""Whatever happens in whatever order: what is kept is what there would be if everybody were looked at anew."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis_settings

from shared.events import SegmentEntered
from shared.personal import PersonErased
from shared.service import free_port
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.runtime_world import environment_of
from tests.service.scoring_world import NOW
from tests.service.segments_world import Segments
from throughline.services import service_code

CONDITIONS = {
    "home": "lead.country == 'AT'",
    "keen": "touches.form_submitted.days_7 >= 2",
    "warm": "score.engagement >= 20.0",
    "cold": "touches.any.days_2 == 0 && touches.any.ever > 0",
    "asked": "score.hand_raise || deal.status == 'open' || stage == 'mql'",
    "home_not_keen": "'home' in segments && !('keen' in segments)",
    "known_cold": "'cold' in segments && ('warm' in segments || lead.consent.email == 'granted')",
}
WHO = strategies.sampled_from([0, 1, 2])
KINDS = strategies.sampled_from(["form_submitted", "page_view", "demo_requested", "email_opened"])
STEPS = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("touch"), strategies.sampled_from([0, 1, 2, "browser"]), KINDS),
        strategies.tuples(strategies.just("robot"), WHO, KINDS),
        strategies.tuples(strategies.just("late"), WHO, strategies.integers(1, 200)),
        strategies.tuples(strategies.just("profile"), WHO, strategies.sampled_from(["AT", "US"])),
        strategies.tuples(strategies.just("consent"), WHO, strategies.sampled_from(["granted", "denied"])),
        strategies.tuples(strategies.just("deal"), WHO, strategies.sampled_from(["open", "lost"])),
        strategies.tuples(strategies.just("merge"), WHO, WHO),
        strategies.tuples(strategies.just("unmerge"), WHO, WHO),
        strategies.tuples(strategies.just("link"), WHO, strategies.just("")),
        strategies.tuples(strategies.just("erase"), WHO, strategies.just("")),
        strategies.tuples(strategies.just("pass"), strategies.integers(1, 400), strategies.just("")),
        strategies.tuples(strategies.just("save"), strategies.sampled_from(["home", "keen"]), strategies.booleans()),
    ),
    min_size=4,
    max_size=14,
)


async def take(world: Segments, name: str, step: tuple[str, object, object]) -> None:
    """One thing that happens to the people of one history."""
    what, who, more = step
    now = world.clock.now()
    email = f"{name}-{who}@x.example.com"
    lead_id = f"{name}-browser" if who == "browser" else world.lead_id(email)
    other = world.lead_id(f"{name}-{more}@x.example.com")
    match what:
        case "touch" | "robot":
            await world.tell(world.touch(lead_id, str(more), now, automated=what == "robot"))
        case "late":
            await world.tell(world.touch(lead_id, "form_submitted", now - timedelta(hours=int(str(more)))))
        case "profile":
            with suppress(PersonErased):  # who was erased is told nothing more of
                await world.tell(await world.captured(email, next(world._number), now, country=str(more)))
        case "consent":
            await world.tell(world.consent(lead_id, more, now))
        case "deal":
            await world.tell(world.deal(lead_id, f"{lead_id}-deal", more, next(world._number)))
        case "merge" if who != more:
            await world.tell(world.merged(lead_id, other, now))
        case "unmerge" if who != more:
            await world.tell(world.unmerged(lead_id, other, now))
        case "link":
            await world.tell(world.linked(f"{name}-browser", lead_id, now))
        case "erase":
            await world.tell(world.erased(lead_id))
        case "pass":
            world.clock.move(timedelta(minutes=int(str(who)) * 30))
        case "save":
            when = CONDITIONS[str(who)] + (" || touches.page_view.days_3 > 1" if more else "")
            await world.ask("PUT", f"segments/{who}", 200, json={"name": "S", "kind": "dynamic", "when": when})


def test_what_is_kept_is_what_a_look_at_everybody_finds(settings: Settings) -> None:
    names = (f"h{number}" for number in count())

    async def story(world: Segments, steps: list[tuple[str, object, object]]) -> None:
        name = next(names)
        for step in steps:
            await take(world, name, step)
            world.clock.move(timedelta(seconds=1))
        await world.scoring.run_timers()
        assert await world.scoring.parked() == []
        expected = await world.from_scratch()
        assert {one: await world.members(one) for one in CONDITIONS} == expected
        told = await world.as_told()
        assert {one: told.get(one, set()) for one in CONDITIONS} == expected

    with asyncio.Runner() as runner:
        opened = harness(service_code("scoring"), settings, clock=FrozenClock(NOW))
        service = runner.run(opened.__aenter__())
        world = Segments(service, service.runtime.clock)  # type: ignore[arg-type]  # the frozen one
        try:
            for segment_id, when in CONDITIONS.items():
                runner.run(world.save(segment_id, when))

            @hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(STEPS)
            def histories(steps: list[tuple[str, object, object]]) -> None:
                runner.run(story(world, steps))

            histories()
        finally:
            runner.run(opened.__aexit__(None, None, None))


@asynccontextmanager
async def worker(settings: Settings, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker of scoring in a process of its own; killed at the end."""
    ports = {"port": str(free_port()), "management_port": str(free_port())}
    words = (sys.executable, "-m", "throughline", "run", "scoring", "worker")
    environment = environment_of(settings, failpoints=failpoints, **ports)
    started = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.slow
async def test_a_worker_killed_while_it_builds_and_while_it_tells_is_taken_over(settings: Settings) -> None:
    async with harness(service_code("scoring"), settings) as service:
        world = Segments(service, FrozenClock(NOW))
        leads = [f"lead-{number:04}" for number in range(1_200)]
        await world.tell(*(world.touch(one, "form_submitted") for one in leads))
        body = {"segment_id": "all", "name": "All", "kind": "dynamic", "when": "touches.any.ever == 1"}
        await world.ask("POST", "segments", 201, json=body)
        async with worker(settings, "while_a_segment_is_built:2") as first:
            assert await first.wait() == -signal.SIGKILL
        half = await world.ask("GET", "segments/all", 200)
        assert (half["state"], half["counted"], half["remaining"], half["members"]) == ("building", 500, 700, 0)
        async with worker(settings, "while_a_segment_is_told:2") as second:
            assert await second.wait() == -signal.SIGKILL
        assert (await world.ask("GET", "segments/all", 200))["members"] == 1_200
        assert len(await service.told(SegmentEntered)) == 500

        await service.run_timers()
        assert await world.as_told() == {"all": set(leads)}
