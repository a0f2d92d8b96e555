"""Runs: a version of a model is built beside the one that serves, and takes its place in one step."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.models.catalogue import Catalogue
from services.attribution.models.custom import STORE
from services.attribution.models.handlers import STEP, begin_runs, walk_models
from services.attribution.models.queries import runs, share_runs, take_credits
from shared.db import TRANSIENT
from shared.errors import Unavailable
from shared.service import free_port
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller
from tests.service.runtime_world import anybody_waits, environment_of
from tests.service.test_attribution_histories import (
    expected_credits,
    histories,
    in_any_order,
    stored_credits,
    stored_sums,
    sums_of,
)
from throughline.services import service_code

FIRST, LAST = {"base": "first_touch"}, {"base": "last_touch"}


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def put(service: Harness, model: str, document: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = await service.client.put(f"/v1/models/{model}", json=document, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def get(service: Harness, path: str, **query: Any) -> Any:
    answer = await service.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def values(service: Harness, model: str) -> dict[str, int]:
    rows = (await get(service, "/v1/reports/attribution", model=model))["rows"]
    return {row["key"]: row["value_minor"] for row in rows}


async def settle(service: Harness) -> None:
    """Run the timers until every version that counts serves and nothing is left of the others."""
    for _ in range(60):
        await service.run_timers()
        async with service.runtime.database.reading() as connection:
            left = "SELECT count(*) FROM model_runs WHERE state <> 'serving' OR finished_at IS NULL"
            if not await connection.fetchval(left):
                return
    raise AssertionError("the runs do not come to an end")


async def check(service: Harness, facts: list[Any]) -> None:
    """What is stored is what the facts and the models come to, and nothing else."""
    expected = await expected_credits(service, facts)
    assert await stored_credits(service) == expected
    assert await stored_sums(service) == sums_of(expected)
    async with service.runtime.database.reading() as connection:
        strangers = "SELECT count(*) FROM credits WHERE run NOT IN (SELECT run FROM model_runs)"
        assert await connection.fetchval(strangers) == 0


async def some_conversions(service: Harness, number: int) -> list[Any]:
    teller = Teller()
    facts = [
        fact
        for person in range(number)
        for fact in (
            teller.touch(f"p{person}", 20, channel="Email"),
            teller.touch(f"p{person}", 3, channel="SMS"),
            teller.conversion(f"p{person}", 1, 100, external_id=f"order{person}"),
        )
    ]
    await service.deliver(*facts)
    return facts


async def test_list_tells_every_model_its_kind_and_what_serves(attribution: Harness) -> None:
    await put(attribution, "chain", {"base": "markov", "order": 3, "title": "Chains"})
    await put(attribution, "half", {"base": "w_shaped", "lookback_days": 0.5, "reset_after_conversion": True})
    await put(attribution, "unused", {}, draft=True)
    await settle(attribution)
    listed = {one["model_id"]: one for one in (await get(attribution, "/v1/models"))["items"]}
    assert "unused" not in listed
    assert {name for name, one in listed.items() if not one["splits"]} == {"markov", "shapley", "chain"}
    assert {name for name, one in listed.items() if one["kind"] == "custom"} == {"engaged", "chain", "half"}
    assert {one["serving"]["version"] == one["version"] for one in listed.values()} == {True}
    assert [listed["markov"]["order"], listed["shapley"]["game"]] == [1, "subset_rate"]
    chain, half = listed["chain"], listed["half"]
    assert (chain["title"], chain["base"], chain["order"], chain["game"]) == ("Chains", "markov", 3, None)
    assert (half["title"], half["lookback_days"], half["reset_after_conversion"]) == ("half", 0.5, True)
    assert [one["model_id"] for one in listed.values() if one["whole"]] == ["participation"]
    assert (await get(attribution, "/v1/models/markov"))["serving"]["state"] == "serving"


async def test_old_version_serves_until_the_new_one_is_built(attribution: Harness) -> None:
    facts = await some_conversions(attribution, STEP + 20)
    await put(attribution, "mine", FIRST)
    await settle(attribution)
    told = await put(attribution, "mine", LAST)
    building = told["building"]
    assert (building["version"], building["done"], building["total"]) == (2, 0, STEP + 20)
    assert (told["serving"]["version"], told["active"]) == (1, True)
    await attribution.run_timers()
    halfway = await get(attribution, "/v1/models/mine")
    assert (halfway["building"]["done"], halfway["building"]["finished_at"]) == (STEP, None)
    assert halfway["building"]["rate"] > 0
    assert halfway["building"]["seconds_left"] > 0
    assert await values(attribution, "mine") == {"Email": 100 * (STEP + 20)}
    path = f"/v1/conversions/{Teller().conversion_id('order0')}/credits"
    assert (await get(attribution, path, model="mine"))["model_version"] == 1
    await settle(attribution)
    assert await values(attribution, "mine") == {"SMS": 100 * (STEP + 20)}
    assert (await get(attribution, path, model="mine"))["model_version"] == 2
    after = await get(attribution, "/v1/models/mine")
    assert (after["serving"]["version"], after["serving"]["done"], after["building"]) == (2, STEP + 20, None)
    await check(attribution, facts)


async def test_version_saved_while_another_is_built_takes_its_place(attribution: Harness) -> None:
    facts = await some_conversions(attribution, STEP + 20)
    await put(attribution, "mine", FIRST)
    await settle(attribution)
    await put(attribution, "mine", {"base": "linear", "lookback_days": None})
    await attribution.run_timers()
    again = await put(attribution, "mine", LAST)
    assert (again["serving"]["version"], again["building"]["version"], again["building"]["done"]) == (1, 3, 0)
    await settle(attribution)
    assert await values(attribution, "mine") == {"SMS": 100 * (STEP + 20)}
    await check(attribution, facts)


async def test_return_to_the_version_that_serves_lets_go_what_is_built(attribution: Harness) -> None:
    facts = await some_conversions(attribution, 3)
    await put(attribution, "mine", FIRST)
    await settle(attribution)
    await put(attribution, "mine", LAST)
    answer = await attribution.client.post("/v1/models/mine:activate", json={"version": 1})
    assert (answer.json()["building"], answer.json()["serving"]["version"]) == (None, 1)
    await settle(attribution)
    await check(attribution, facts)


async def test_version_counts_from_a_time_to_come(attribution: Harness) -> None:
    await some_conversions(attribution, 3)
    await put(attribution, "mine", FIRST)
    await put(attribution, "mine", LAST, draft=True)
    await settle(attribution)
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await attribution.client.post("/v1/models/mine:activate", json={"version": 2, "at": at})
    assert (answer.status_code, answer.json()["building"]) == (200, None)
    await attribution.run_timers()
    assert await values(attribution, "mine") == {"Email": 300}
    async with attribution.runtime.database.transaction() as tx:
        await tx.connection.execute(
            "UPDATE rule_activations SET effective_at = clock_timestamp() WHERE name = 'mine' AND version = 2"
        )

    async def counts() -> bool:
        await attribution.run_timers()
        return await values(attribution, "mine") == {"SMS": 300}

    await eventually(counts)


async def test_model_that_is_saved_while_a_walk_looks_is_built(attribution: Harness) -> None:
    facts = await some_conversions(attribution, 2)
    async with attribution.runtime.database.transaction() as tx:
        await tx.connection.execute("LOCK TABLE model_runs")
        walking = asyncio.create_task(walk_models(attribution.consumer_runtime.database, Catalogue()))
        await eventually(lambda: anybody_waits(attribution.runtime.database))
        await STORE.save(tx.connection, {"base": "first_touch"}, "anna", "mine")
        await begin_runs(tx.connection)
    await walking
    await settle(attribution)
    await check(attribution, facts)


async def test_version_built_at_the_last_moment_does_not_serve_while_it_is_owed(attribution: Harness) -> None:
    await some_conversions(attribution, 2)
    for model in ("mine", "other"):
        await put(attribution, model, FIRST)
    finish = "UPDATE model_runs SET finished_at = clock_timestamp() WHERE model = $1"
    async with attribution.runtime.database.transaction() as tx:
        await tx.connection.execute(finish, "mine")
    async with attribution.runtime.database.transaction() as tx:
        await share_runs(tx.connection)
        walking = asyncio.create_task(walk_models(attribution.consumer_runtime.database, Catalogue()))
        await eventually(lambda: anybody_waits(attribution.runtime.database))
        await tx.connection.execute(finish, "other")
        owe = "INSERT INTO credit_debts SELECT conversion_id, 3, lead_id, occurred_at FROM conversions"
        await tx.connection.execute(owe)
    await walking
    assert (await get(attribution, "/v1/models/other"))["serving"] is None


async def test_number_of_a_version_that_was_taken_back_is_given_to_another(attribution: Harness) -> None:
    await put(attribution, "mine", FIRST)
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND {}"
    async with attribution.consumer_runtime.database.transaction() as tx:
        await tx.connection.execute("SELECT FROM model_runs WHERE model = 'mine' FOR UPDATE")
        saving = asyncio.create_task(attribution.client.put("/v1/models/mine", json={"base": "participation"}))
        await eventually(lambda: anybody_waits(attribution.runtime.database))
        await tx.connection.execute(ending.format("wait_event_type = 'Lock'"))
        assert (await saving).status_code == 503
    assert (await put(attribution, "mine", LAST))["version"] == 2
    await settle(attribution)
    listed = {one["model_id"]: one for one in (await get(attribution, "/v1/models"))["items"]}
    assert not listed["mine"]["whole"]


async def test_conversion_taken_back_while_a_run_is_taken_away_leaves_nothing(attribution: Harness) -> None:
    facts = await some_conversions(attribution, 3)
    for document in (FIRST, LAST):
        await put(attribution, "mine", document)
        await attribution.run_timers()
    await put(attribution, "mine", {"base": "linear"})
    withdrawn = facts[-1].model_copy(update={"event_id": "gone", "position": 99, "withdrawn": True, "value_minor": 0})
    async with attribution.runtime.database.transaction() as tx:
        (gone,) = [run for run in await runs(tx.connection) if run.state == "retiring"]
        await tx.connection.execute("SELECT FROM paths WHERE conversion_id = $1 FOR UPDATE", withdrawn.conversion_id)
        telling = asyncio.create_task(attribution.deliver(withdrawn))
        await eventually(lambda: anybody_waits(attribution.runtime.database))
        assert await take_credits(tx.connection, gone, limit=100)
    await telling
    await settle(attribution)
    await check(attribution, facts[:-1])


async def test_paths_are_no_longer_than_the_longest_look_back(attribution: Harness) -> None:
    teller = Teller()
    facts: list[Any] = [teller.touch("nora", days, channel="Email") for days in (400, 200, 80, 2)]
    facts.append(teller.conversion("nora", 1, 1_000, external_id="order"))
    await attribution.deliver(*facts)
    lengths = []
    for lookback in (365, None, 250, 30):
        await put(attribution, "mine", {"base": "linear", "lookback_days": lookback})
        await settle(attribution)
        await check(attribution, facts)
        async with attribution.runtime.database.reading() as connection:
            lengths.append(await connection.fetchval("SELECT cardinality(touch_ids) - 1 FROM paths"))
    assert lengths == [3, 4, 3, 2]


async def test_facts_that_come_while_a_version_is_built_count_in_both(attribution: Harness) -> None:
    facts = histories(range(500, 503))
    batches = list(in_any_order(facts, random.Random(5), largest=40))
    documents: Iterator[dict[str, Any]] = iter(
        [FIRST, {"base": "linear", "lookback_days": None}, {"base": "full_path", "lookback_days": 20}]
    )
    for number, batch in enumerate(batches):
        if number % 4 == 0 and (document := next(documents, None)):
            await put(attribution, "mine", document)
        await attribution.deliver(*batch)
        await attribution.run_timers()
    await settle(attribution)
    await check(attribution, facts)


@pytest.mark.slow
async def test_consumers_walks_and_new_versions_at_once_miss_nothing(attribution: Harness) -> None:
    facts = histories(range(510, 514))
    delivered = asyncio.Event()

    async def consume(number: int) -> None:
        for batch in in_any_order(facts[number::2], random.Random(number), largest=12):
            await until_done(attribution.deliver, *batch)

    async def walk() -> None:
        while not delivered.is_set():
            await until_done(attribution.run_timers)

    async def save() -> None:
        for lookback in (10, None, 200, 30):
            await until_saved("mine", {"base": "position_based", "lookback_days": lookback})
            await until_saved("other", {"base": "linear", "reset_after_conversion": lookback == 10})

    async def until_saved(model: str, document: dict[str, Any]) -> None:
        while (await attribution.client.put(f"/v1/models/{model}", json=document)).status_code == 503:
            continue

    async with asyncio.TaskGroup() as walks:  # ends them where something fails
        for _ in range(2):
            walks.create_task(walk())
        await asyncio.gather(consume(0), consume(1), save())
        delivered.set()
    await settle(attribution)
    await check(attribution, facts)


async def until_done(what: Any, *arguments: Any) -> None:
    """Again until it is taken: of two that wait for each other the database ends one, and it comes again."""
    while True:
        try:
            await what(*arguments)
            return
        except (*TRANSIENT, Unavailable):
            continue


@asynccontextmanager
async def worker(settings: Settings, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker of attribution in a process of its own; killed at the end."""
    ports = {"port": str(free_port()), "management_port": str(free_port())}
    environment = environment_of(settings, failpoints=failpoints, **ports)
    words = (sys.executable, "-m", "throughline", "run", "attribution", "worker")
    started = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.slow
async def test_worker_killed_in_the_middle_of_a_walk_is_taken_over(attribution: Harness, settings: Settings) -> None:
    facts = await some_conversions(attribution, STEP + 20)
    await put(attribution, "mine", LAST)
    async with worker(settings, "model_walk_before_commit:2") as first:
        assert await first.wait() == -signal.SIGKILL
    assert (await get(attribution, "/v1/models/mine"))["building"]["done"] == STEP

    async def serves() -> bool:
        told = await get(attribution, "/v1/models/mine")
        return told["building"] is None and told["serving"]["done"] == STEP + 20

    async with worker(settings):
        await eventually(serves, within=150)
    await check(attribution, facts)
