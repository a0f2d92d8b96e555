"""Jobs: one after the other, alive while they wait for their turn, called off at any time, and clear about why not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import jobs as module
from shared.db import Database
from shared.jobs import DIED, JobFailed, Jobs, Progress, told_died
from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import execute, fetch, runtime_of

TABLE = """
CREATE TABLE tries (job_id text PRIMARY KEY, state text NOT NULL DEFAULT 'running', signs integer NOT NULL DEFAULT 0,
    done integer, report jsonb, problem text)
"""
SHOW_LIFE = "UPDATE tries SET signs = signs + 1, done = $2 WHERE job_id = $1 AND state = 'running' RETURNING true"
FINISH = "UPDATE tries SET state = $2, report = $3, problem = $4 WHERE job_id = $1 AND state = 'running'"


@pytest.fixture
async def database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(module, "SIGN_S", 0.01)
    async with runtime_of(settings) as runtime:
        await execute(runtime.database, TABLE)
        yield runtime.database


async def job(database: Database, job_id: str) -> dict[str, Any]:
    (row,) = await fetch(database, "SELECT * FROM tries WHERE job_id = $1", job_id)
    return dict(row)


async def ends_as(database: Database, job_id: str, state: str) -> dict[str, Any]:
    async def over() -> dict[str, Any]:
        row = await job(database, job_id)
        assert row["state"] == state
        return row

    return await eventually(over)


async def test_a_job_that_waits_for_its_turn_is_alive_and_can_be_called_off(database: Database) -> None:
    jobs = Jobs(database, "try_failed", SHOW_LIFE, FINISH)
    go_on = asyncio.Event()

    async def slow(progress: Progress) -> dict[str, Any]:
        await progress(1)
        await go_on.wait()
        return {"found": 7}

    async def never(progress: Progress) -> dict[str, Any]:
        raise AssertionError("it was called off before its turn")

    for job_id, compute in (("first", slow), ("second", slow), ("third", never)):
        await execute(database, "INSERT INTO tries (job_id) VALUES ($1)", job_id)
        jobs.start(job_id, compute, 0)

    async def is_alive() -> None:
        assert (await job(database, "second"))["signs"] > 2

    await eventually(is_alive)
    assert (await job(database, "second"))["done"] == 0
    await jobs.finish("third", "cancelled")
    go_on.set()
    for job_id in ("first", "second"):
        assert (await ends_as(database, job_id, "done"))["report"] == {"found": 7}
    await ends_as(database, "third", "cancelled")


async def test_a_job_that_cannot_be_done_says_why_and_the_next_one_has_its_turn(database: Database) -> None:
    jobs = Jobs(database, "try_failed", SHOW_LIFE, FINISH)

    async def refused(progress: Progress) -> dict[str, Any]:
        raise JobFailed("Kafka did not answer; ask again")

    async def broken(progress: Progress) -> dict[str, Any]:
        raise ZeroDivisionError

    async def well(progress: Progress) -> dict[str, Any]:
        return {}

    for job_id, compute in (("refused", refused), ("broken", broken), ("well", well)):
        await execute(database, "INSERT INTO tries (job_id) VALUES ($1)", job_id)
        jobs.start(job_id, compute, 0)
    assert (await ends_as(database, "refused", "failed"))["problem"] == "Kafka did not answer; ask again"
    assert "logged" in (await ends_as(database, "broken", "failed"))["problem"]
    await ends_as(database, "well", "done")


def test_a_job_that_failed_without_a_word_has_died() -> None:
    assert told_died({"state": "failed", "problem": None})["problem"] == DIED
    for row in ({"state": "failed", "problem": "no"}, {"state": "done", "problem": None}):
        assert told_died(row) == row
