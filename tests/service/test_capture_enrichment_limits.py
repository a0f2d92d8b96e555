"""Providers that fail, that are limited, and workers that die: no call too many, no value lost, none told twice."""

import asyncio
import os
import signal
import sys
from datetime import timedelta

import pytest

from shared.events import LeadCaptured
from shared.settings import Settings
from shared.testing import eventually
from tests.service.capture_world import NOW
from tests.service.enrichment_world import ACME, ANN, world_of
from tests.service.local_server import Asked, reply


async def test_a_person_erased_during_the_call_gets_nothing(settings: Settings) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def respond(_: Asked) -> bytes:
        asked.set()
        await go_on.wait()
        return reply(200, ACME)

    async with world_of(settings) as world:
        world.server.respond = respond
        await world.provider(cache={"days": 7}, request={"url": f"{world.address}/p/{{email}}"})
        lead = await world.lead(email=ANN)
        turn = asyncio.create_task(world.turn())
        await asked.wait()
        await world.post(f"leads/{lead['lead_id']}:erase", None)
        go_on.set()
        await turn
        for table in ("enrichments", "enrichment_asks", "enrichment_answers"):
            assert await world.rows(f"SELECT 1 FROM {table}") == []
        assert len(await world.harness.told(LeadCaptured)) == 1
        assert await world.rows("SELECT sealed FROM leads WHERE sealed IS NOT NULL") == []


async def test_a_lead_changed_during_the_call_loses_nothing_and_has_another_turn(settings: Settings) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def respond(_: Asked) -> bytes:
        asked.set()
        await go_on.wait()
        return reply(200, ACME)

    async with world_of(settings) as world:
        world.server.respond = respond
        await world.provider()
        lead = await world.lead(email=ANN)
        turn = asyncio.create_task(world.turn())
        await asked.wait()
        await world.lead(email=ANN, industry="Toys", company="Acme")
        go_on.set()
        await turn
        after = (await world.get(f"leads/{lead['lead_id']}")).json()
        assert (after["industry"], after["company"]) == ("Toys", "Acme")
        await world.turn()
        assert await world.rows("SELECT 1 FROM enrichments") == []
        assert len(world.server.asked) == 1


async def test_a_failing_provider_is_asked_again_later_and_the_next_one_meanwhile(settings: Settings) -> None:
    async with world_of(
        settings, reply(500), reply(200, {"company": {"industry": "Second"}}), reply(200, ACME)
    ) as world:
        await world.provider("first", order=1)
        lead = await world.lead(email=ANN)
        await world.turn()
        run = await world.run_of(lead["lead_id"], "first")
        assert (run["outcome"], run["detail"], run["tries"]) == ("failed", "it answered 500", 1)
        await world.turn(seconds=1)
        assert len(world.server.asked) == 1
        await world.turn(seconds=10)
        assert (await world.run_of(lead["lead_id"], "first"))["outcome"] == "found"
        assert (await world.get(f"leads/{lead['lead_id']}")).json()["industry"] == "Second"


async def test_who_wants_to_be_left_alone_is(settings: Settings) -> None:
    async with world_of(settings, reply(429, b"", retry_after="120"), reply(200, ACME)) as world:
        await world.provider()
        ann, ben = await world.lead(email=ANN), await world.lead(email="ben@globex.com")
        await world.turn()
        await world.turn(seconds=100)
        assert len(world.server.asked) <= 2
        before = len(world.server.asked)
        await world.turn(seconds=5)
        assert len(world.server.asked) == before
        await world.turn(seconds=60)
        await world.turn(seconds=60)
        for lead in (ann, ben):
            assert (await world.run_of(lead["lead_id"]))["outcome"] == "found"


async def test_a_request_that_the_provider_refuses_is_not_repeated_until_it_is_another(settings: Settings) -> None:
    async with world_of(settings, reply(422), reply(200, ACME)) as world:
        await world.provider(request={"url": f"{world.address}/{{domain}}", "query": {"c": "{company}"}})
        lead = await world.lead(email=ANN, company="A")
        await world.turn()
        await world.turn(hours=5)
        await world.lead(email=ANN, title="CEO")
        await world.turn()
        assert (len(world.server.asked), (await world.run_of(lead["lead_id"]))["outcome"]) == (1, "failed")
        await world.lead(email=ANN, company="B")
        await world.turn()
        assert (await world.run_of(lead["lead_id"]))["outcome"] == "found"


async def test_a_breaker_opens_for_all_and_one_call_tries_again(settings: Settings) -> None:
    async with world_of(settings, reply(503)) as world:
        await world.provider(breaker={"failures": 3, "open_s": 600})
        for n in range(3):
            await world.lead(email=f"p{n}@company{n}.com")
            await world.turn()
        assert len(world.server.asked) == 3
        state = (await world.get("enrichment/providers/acme")).json()
        assert (state["breaker"]["state"], state["today"]["failures"]) == ("open", 3)
        late = await world.lead(email="late@company9.com")
        await world.turn()
        assert (await world.run_of(late["lead_id"]))["outcome"] == "waiting"
        await world.turn(seconds=300)
        assert len(world.server.asked) == 3
        world.clock.move(timedelta(seconds=301))
        assert (await world.get("enrichment/providers/acme")).json()["breaker"]["state"] == "half_open"
        await world.turn()
        assert len(world.server.asked) == 4
        world.server.answers = [reply(200, ACME)]
        for _ in range(4):
            await world.turn(seconds=3_700)
        assert (await world.get("enrichment/providers/acme")).json()["breaker"] == {
            "state": "closed",
            "failures": 0,
            "until": None,
        }
        assert (await world.run_of(late["lead_id"]))["outcome"] == "found"


async def test_a_budget_is_never_exceeded_also_by_many_at_once(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(budget={"per_day": 5, "per_month": 8, "cost_minor": 7, "currency": "EUR"})
        leads = [await world.lead(email=f"p@company{n}.com") for n in range(12)]
        await asyncio.gather(*(world.harness.run_timers() for _ in range(3)))
        assert len(world.server.asked) == 5
        account = (await world.get("enrichment/providers/acme")).json()["today"]
        assert (account["calls"], account["hits"], account["spent_minor"]) == (5, 5, 35)
        waiting = [run for lead in leads if (run := await world.run_of(lead["lead_id"]))["outcome"] == "waiting"]
        assert (len(waiting), {"budget of the day" in run["detail"] for run in waiting}) == (7, {True})
        world.clock.move(timedelta(days=1))
        same_month = world.clock.now().month == NOW.month
        await world.turn()
        assert len(world.server.asked) == (8 if same_month else 10)


async def test_a_rate_limit_holds_over_all_workers(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(rate={"per_minute": 6})
        for n in range(6):
            await world.lead(email=f"p@company{n}.com")
        await asyncio.gather(*(world.harness.run_timers() for _ in range(3)))
        assert len(world.server.asked) == 1
        await world.turn(seconds=10.1)
        assert len(world.server.asked) == 2
        for _ in range(5):
            await world.turn(seconds=10.1)
        assert len(world.server.asked) == 6


async def test_many_workers_at_once_ask_once_for_each_lead(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider()
        leads = [await world.lead(email=f"p@company{n}.com") for n in range(40)]
        await asyncio.gather(*(world.harness.run_timers() for _ in range(4)))
        assert len(world.server.asked) == len({asked.target for asked in world.server.asked}) == 40
        told = [event for event in await world.harness.told(LeadCaptured) if event.origin == "enrichment:acme"]
        assert sorted(event.lead_id for event in told) == sorted(lead["lead_id"] for lead in leads)


async def test_odd_answers_break_nothing(settings: Settings) -> None:
    deep = b'{"a":' * 5_000 + b"1" + b"}" * 5_000
    odd = [b"<html>", b"[1", deep, b"null", b'"x"', b"1e999", b'{"company":{"industry":{"a":1}}}', b"\xff\xfe", b"NaN"]
    odd += [b'{"company":{"industry":123456789012345678901234567890}}', b'{"company":{"industry":"a\\u0000b"}}']
    odd += [b'{"company":{"industry":"\\ud800"}}', b'{"company":{"industry":"' + b"x" * 5_000 + b'"}}']
    async with world_of(settings, *(reply(200, body) for body in odd)) as world:
        await world.provider(breaker={"failures": 1_000})
        for n in range(len(odd)):
            lead = await world.lead(email=f"p@company{n}.com")
            await world.turn()
            run = await world.run_of(lead["lead_id"])
            assert run["outcome"] in ("failed", "nothing", "found"), run
        assert len(world.server.asked) == len(odd)


async def test_a_turn_whose_process_died_is_taken_up_by_another(settings: Settings) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def respond(_: Asked) -> bytes:
        if not asked.is_set():
            asked.set()
            await never.wait()
        return reply(200, ACME)

    async with world_of(settings) as world:
        world.server.respond = respond
        await world.provider()
        lead = await world.lead(email=ANN)
        dying = asyncio.create_task(world.turn())
        await asked.wait()
        dying.cancel()
        await eventually(dying.done)
        await world.turn(seconds=10)
        assert len(world.server.asked) == 1
        await world.turn(seconds=60)
        never.set()
        assert (await world.run_of(lead["lead_id"]))["outcome"] == "found"
        assert len(world.server.asked) == 2
        told = [event for event in await world.harness.told(LeadCaptured) if event.origin == "enrichment:acme"]
        assert len(told) == 1


KILLED = """
import asyncio, sys
from shared.faults import arm
from shared.service import build_runtime
from shared.settings import Settings
from services.capture.worker import timers
arm(sys.argv[1])
async def main():
    (enrichment,) = [timer for timer in timers(build_runtime("capture", Settings())) if timer.name == "enrichment"]
    while True:
        await enrichment.run()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("failpoint", "asked", "asked_again"),
    [("enrichment_before_call", 0, 1), ("enrichment_after_call", 1, 2), ("enrichment_after_telling", 1, 1)],
)
async def test_a_worker_killed_anywhere_repeats_a_call_at_most_and_tells_once(
    settings: Settings, failpoint: str, asked: int, asked_again: int
) -> None:
    async with world_of(settings) as world:
        await world.provider(budget={"per_day": 100})
        world.clock.move(timedelta(seconds=-60))  # so that the process, whose clock is the machine's, finds it due
        lead = await world.lead(email=ANN)
        environment = {
            **os.environ,
            "THROUGHLINE_DATABASE_URL": settings.database_url.get_secret_value(),
            "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "THROUGHLINE_SECRET": settings.secret.get_secret_value(),
            "THROUGHLINE_OUTBOUND_PRIVATE_HOSTS": '["127.0.0.1"]',
        }
        words = (sys.executable, "-c", KILLED, f"{failpoint}:1")
        worker = await asyncio.create_subprocess_exec(*words, env=environment)
        async with asyncio.timeout(60):
            assert await worker.wait() == -signal.SIGKILL
        assert len(world.server.asked) == asked
        await world.turn(minutes=90)  # the process went by the machine's clock, which may be far from the test's
        assert len(world.server.asked) == asked_again
        assert (await world.run_of(lead["lead_id"]))["outcome"] == "found"
        told = [event for event in await world.harness.told(LeadCaptured) if event.origin == "enrichment:acme"]
        assert [event.industry for event in told] == ["Robots"]
        assert await world.rows("SELECT 1 FROM enrichments") == []
        (usage,) = await world.rows("SELECT sum(calls) AS calls FROM enrichment_usage")
        assert usage["calls"] >= asked_again
