"""Other rules are computed beside those that serve, follow the facts meanwhile, and take their place at once."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import pytest_asyncio

from services.scoring.parts import make_parts
from services.scoring.people.handlers import make_anew
from services.scoring.rules import following, rescoring, slices
from services.scoring.rules.rescoring import rescore
from services.scoring.rules.slices import Question, tally_of, trial_of
from services.scoring.rules.tally import Change, Tally
from shared.db import TRANSIENT
from shared.errors import Unavailable
from shared.events import Event, LeadScored, StageChanged
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.scoring_world import BROWSERS, NOW, PEOPLE, World, random_history
from throughline.services import service_code

STEPS = ("filled:2", "before_switch:1", "followed:1")
DIES = """
import asyncio, sys
from services.scoring.parts import make_parts
from services.scoring.rules import following, rescoring
from shared.faults import arm
from shared.service import build_runtime
from shared.settings import Settings

rescoring.PAGE = following.PAGE = 2

async def main():
    runtime = build_runtime("scoring", Settings())
    arm(sys.argv[1])
    await rescoring.rescore(runtime.database, make_parts(runtime), runtime.settings)
    await following.follow_switch(runtime.database, make_parts(runtime), runtime.settings)

asyncio.run(main())
"""


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


def random_document(dice: random.Random) -> dict[str, Any]:
    """Rules of every sort on what `random_history` tells."""
    kinds = ("page_view", "email_clicked", "form_submitted", "demo_requested", "unsubscribed")
    rules: list[dict[str, Any]] = []
    for number in range(dice.randrange(2, 7)):
        rule: dict[str, Any] = {"id": f"r{number}", "when": f"event.type == '{dice.choice(kinds)}'"}
        rule["points"] = dice.choice([3, 7, 20, 45, -15])
        if dice.random() < 0.3:
            rule["when"] += " && event.path.contains('pricing')"
        if dice.random() < 0.4:
            rule["per_day"] = dice.choice([5, 10, 30])
        elif dice.random() < 0.3:
            rule["once"] = True
        if dice.random() < 0.4:
            rule["half_life_days"] = dice.choice([0.5, 2, 90])
        if dice.random() < 0.5:
            rule["group"] = "g"
        rule["hand_raise"] = dice.random() < 0.2
        rules.append(rule)
    fit = {"rules": [{"id": "big", "when": "lead.employees > 400", "points": dice.choice([10, 60])}]}
    if dice.random() < 0.5:
        fit["rules"].append({"id": "a", "when": "lead.email.startsWith('a')", "points": 15})
    bar = dice.choice([20, 40])
    mql = {"stage": "mql", "when": f"score.engagement >= {bar} || score.hand_raise"}
    if dice.random() < 0.7:
        mql["leave_when"] = f"score.engagement < {bar // 2}"
    stages = [mql, {"stage": "sal", "when": "assignment.state == 'accepted' && score.total > 30"}]
    return {"engagement": {"groups": {"g": dice.choice([15, 50])}, "rules": rules}, "fit": fit, "stages": stages}


async def rows_and_rows_made_anew(world: World) -> tuple[Any, Any]:
    """The rows that serve, and what they would be if all were made anew from the facts, which is what they are now."""
    rows = await world.projection()
    parts = make_parts(world.scoring.consumer_runtime)
    async with world.scoring.consumer_runtime.database.transaction() as tx:
        rules = await parts.rules.current(tx.connection)
        every_id = [*(world.lead_id(email) for email in PEOPLE), *map(LeadId, BROWSERS)]
        await make_anew(tx.connection, parts, every_id, rules)
    return rows, await world.projection()


async def deliver(world: World, facts: list[Event]) -> None:
    for start in range(0, len(facts), 5):
        while True:
            try:
                await world.tell(*facts[start : start + 5])
                break
            except (Unavailable, *TRANSIENT):
                continue


async def rescored(world: World) -> None:
    runtime = world.scoring.consumer_runtime
    while True:
        try:
            await rescore(runtime.database, make_parts(runtime), runtime.settings)
            break
        except (Unavailable, *TRANSIENT):
            continue


async def progress(world: World) -> dict[str, Any]:
    answer: dict[str, Any] = (await world.scoring.client.get("/v1/rescoring")).json()
    return answer


@pytest.mark.parametrize("seed", range(2))
async def test_facts_that_arrive_during_and_after_a_switch_reach_the_new_rows_and_the_kept_ones(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(rescoring, "PAGE", 1)
    dice = random.Random(seed)
    facts = await random_history(world, dice, 45)
    third = len(facts) // 3
    await deliver(world, facts[:third])
    saved = await world.put_rules(random_document(dice))
    await asyncio.gather(deliver(world, facts[third : 2 * third]), rescored(world))
    await rescored(world)
    state = await progress(world)
    assert (state["serving_version"], state["remaining"], state["kept_versions"]) == (saved["version"], 0, [1])
    rows, anew = await rows_and_rows_made_anew(world)
    assert rows == anew
    await deliver(world, facts[2 * third :])
    rows, anew = await rows_and_rows_made_anew(world)
    assert rows == anew
    monkeypatch.setattr(rescoring, "make_anew", None)  # a rollback to rows that were kept makes nobody anew
    assert (await world.scoring.client.post("/v1/rules:rollback")).json()["version"] == 1
    await rescored(world)
    state = await progress(world)
    assert (state["serving_version"], state["kept_versions"]) == (1, [saved["version"]])
    rows, anew = await rows_and_rows_made_anew(world)
    assert rows == anew
    assert await world.scoring.parked() == []


async def test_only_the_last_two_versions_that_served_are_kept_up(world: World) -> None:
    await world.tell(world.touch("lead", "form_submitted"))
    for points in (30, 40, 50, 60):
        await world.put_rules(document(points))
        await rescored(world)
    assert (await progress(world))["kept_versions"] == [3, 4]
    await world.tell(world.touch("lead", "form_submitted"))
    for back, kept in ((4, [3, 5]), (3, [4, 5]), (2, [3, 4])):
        await world.scoring.client.post("/v1/rules:activate", json={"version": back})
        await rescored(world)
        assert (await progress(world))["kept_versions"] == kept
        rows, anew = await rows_and_rows_made_anew(world)
        assert rows == anew


async def test_what_is_simulated_is_what_activation_makes_of_everybody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    every: dict[str, Change] = {}

    class Remembering(Tally):
        def add(self, change: Change, *rest: Any) -> None:
            every[change.lead_id] = change
            super().add(change, *rest)

    monkeypatch.setattr(slices, "Tally", Remembering)
    dice = random.Random(11)
    await deliver(world, await random_history(world, dice, 50))
    runtime = world.scoring.consumer_runtime
    parts = make_parts(runtime)
    changes = 0
    for _ in range(5):
        candidate = random_document(dice)
        async with runtime.database.reading() as connection:
            active = await parts.rules.store.active(connection)
            ids = [LeadId(row[0]) for row in await connection.fetch("SELECT person_id FROM scores ORDER BY 1")]
        await world.scoring.run_timers()
        trial = trial_of(Question(orjson.dumps(candidate), orjson.dumps(active.document), active.version, 30, NOW))
        every.clear()
        await tally_of(runtime.database, parts, trial, ids)
        await world.put_rules(candidate)
        await world.scoring.run_timers()
        assert sorted(every) == ids
        for lead_id, change in every.items():
            now = await world.score(lead_id)
            assert {name: now[name] for name in change.after.as_json()} == change.after.as_json(), candidate
            changes += change.before != change.after
    assert changes >= 10


async def test_a_worker_that_is_killed_at_any_step_goes_on_where_it_was(world: World, settings: Settings) -> None:
    for number in range(7):
        await world.tell(world.touch(f"lead-{number}", "form_submitted"))
    await world.put_rules(document(30))
    environment = {
        **os.environ,
        "THROUGHLINE_DATABASE_URL": settings.database_url.get_secret_value(),
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "THROUGHLINE_SECRET": settings.secret.get_secret_value(),
    }
    for number, step in enumerate(STEPS):
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, step, env=environment)
        try:
            async with asyncio.timeout(120):
                assert await worker.wait() == -signal.SIGKILL, step
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        await world.tell(world.touch(f"lead-{number}", "form_submitted"))
    await world.scoring.run_timers()
    assert (await progress(world))["following"]["judged"] >= 7
    scores = [(await world.score(f"lead-{number}")) for number in range(7)]
    assert [one["engagement"] for one in scores] == [60] * 3 + [30] * 4
    assert {one["stage"] for one in scores} == {"mql"}
    stages = await world.scoring.told(StageChanged)
    assert sorted(one.lead_id for one in stages if one.stage == "mql") == [f"lead-{number}" for number in range(7)]


def document(points: int) -> dict[str, Any]:
    """Points for a form, and a stage for those who submitted one."""
    rules = [{"id": "form", "when": "event.type == 'form_submitted'", "points": points}]
    return {"engagement": {"rules": rules}, "stages": [{"stage": "mql", "when": "score.engagement >= 20"}]}


async def test_leads_that_advance_by_other_rules_are_let_out_at_a_pace_and_quietly_if_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAGE", 10)
    await world.put_rules(document(10))
    await world.tell(*(world.touch(f"lead-{number:02}", "form_submitted") for number in range(60)))
    await world.scoring.run_timers()
    slow = world.scoring.settings.model_copy(update={"scoring_advances_at_once": 15, "scoring_advances_per_minute": 1})
    await world.put_rules(document(30))
    runtime = world.scoring.consumer_runtime
    await rescore(runtime.database, make_parts(runtime), slow)
    wait = await following.follow_switch(runtime.database, make_parts(runtime), slow)
    assert wait is not None and wait > timedelta(seconds=60)
    state = await progress(world)
    assert (state["serving_version"], state["remaining"]) == (3, 0)
    assert {name: state["following"][name] for name in ("judged", "remaining", "changed", "advanced")} == {
        "judged": 20,
        "remaining": 40,
        "changed": 20,
        "advanced": 20,
    }
    assert (await world.score("lead-59"))["engagement"] == 30, "scores count at once"
    back = await world.scoring.client.post("/v1/rules:rollback", json={"announce": False, "reason": "a mistake"})
    assert back.json()["version"] == 2
    await rescore(runtime.database, make_parts(runtime), slow)
    assert await following.follow_switch(runtime.database, make_parts(runtime), slow) is None
    state = await progress(world)
    assert (state["following"]["announce"], state["following"]["judged"], state["following"]["changed"]) == (
        False,
        60,
        20,
    )
    told = [(one.stage, one.quiet) for one in await world.scoring.told(StageChanged)]
    assert [one for one in told if one[0] == "mql"] == [("mql", None)] * 20
    assert told[-20:] == [("subscriber", True)] * 20
    causes = (await world.scoring.client.get("/v1/leads/lead-00/stages")).json()["items"]
    assert [one["cause"] for one in causes][:2] == ["rules:2", "rules:3"]


async def test_a_later_activation_takes_the_place_of_one_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescoring, "PAGE", 1)
    await world.tell(*(world.touch(f"lead-{number}", "form_submitted") for number in range(20)))
    await world.put_rules(document(30))
    under_way = asyncio.create_task(rescored(world))

    async def some_done() -> bool:
        preparing = (await progress(world))["preparing"]
        return preparing is not None and preparing["remaining"] < 20

    await eventually(some_done)
    await world.put_rules(document(40))
    await under_way
    state = await progress(world)
    assert (state["serving_version"], state["kept_versions"], state["preparing"]) == (3, [1], None)
    assert (await world.score("lead-19"))["engagement"] == 40
    assert {one.rules_version for one in await world.scoring.told(LeadScored)} == {1}


async def test_a_planned_activation_is_ready_at_its_time(world: World) -> None:
    await world.tell(*(world.touch(f"lead-{number}", "form_submitted") for number in range(20)))
    await world.put_rules(document(30), draft=True)
    at = datetime.now(UTC) + timedelta(minutes=30)
    await world.scoring.client.post("/v1/rules:activate", json={"version": 2, "at": at.isoformat()})
    await rescored(world)
    state = await progress(world)
    assert (state["rules_version"], state["serving_version"], state["preparing"]["state"]) == (1, 1, "ready")
    await world.tell(world.touch("lead-7", "form_submitted"))
    await world.scoring.run_timers()
    assert (await progress(world))["serving_version"] == 1
    async with world.scoring.runtime.database.transaction() as tx:
        await tx.connection.execute("UPDATE rule_activations SET effective_at = clock_timestamp() WHERE version = 2")

    async def switched() -> bool:
        await world.scoring.run_timers()
        return bool((await progress(world))["serving_version"] == 2)

    await eventually(switched)
    assert (await world.score("lead-7"))["engagement"] == 60
