"""Imports whose workers are killed or frozen in the middle: resumed, nothing twice, nothing left out."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import LeadCaptured
from shared.service import free_port
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.importing_world import Importing, counts, people, table
from tests.service.runtime_world import environment_of
from throughline.services import service_code

ROWS = 1_500


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Importing]:
    async with harness(service_code("capture"), settings) as made:
        yield Importing(made)


@asynccontextmanager
async def worker(settings: Settings, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker of capture in a process of its own; killed at the end."""
    ports = {"port": str(free_port()), "management_port": str(free_port())}
    environment = environment_of(settings, failpoints=failpoints, **ports)
    words = (sys.executable, "-m", "throughline", "run", "capture", "worker")
    started = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGCONT)
            started.kill()
        await started.wait()


async def done(capture: Importing, import_id: str) -> dict[str, Any]:
    """The import once it is over."""

    async def over() -> bool:
        return bool((await capture.job(import_id))["state"] == "done")

    await eventually(over, within=90)
    return await capture.job(import_id)


async def check(capture: Importing, job: dict[str, Any]) -> None:
    """Every row once: by the counts, by the leads, and by what was told."""
    assert (counts(job), job["rows_done"]) == ((ROWS, 0, 0, 1), ROWS + 1)
    assert len(await capture.rows("SELECT 1 FROM leads WHERE revision = 1")) == ROWS
    told = await capture.harness.told(LeadCaptured)
    assert len(told) == len({event.event_id for event in told}) == ROWS
    assert len(await capture.errors(job)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["import_before_commit:2", "import_after_commit:2"])
async def test_a_worker_killed_in_the_middle_is_taken_over(
    capture: Importing, settings: Settings, failpoint: str
) -> None:
    response = await capture.post_file(table(*people(ROWS), ("nobody", "", "")))
    import_id = response.json()["import_id"]
    async with worker(settings, failpoint) as first:
        assert await first.wait() == -signal.SIGKILL
    half = await capture.job(import_id)
    assert (half["state"], 0 < half["rows_done"] < ROWS) == ("running", True)
    assert half["rows_total"] > half["rows_done"]
    assert half["rows_per_second"] > 0
    assert half["seconds_left"] > 0
    async with worker(settings):
        await check(capture, await done(capture, import_id))


@pytest.mark.slow
async def test_a_frozen_worker_is_overtaken_and_does_nothing_when_it_wakes(
    capture: Importing, settings: Settings
) -> None:
    response = await capture.post_file(table(*people(ROWS), ("nobody", "", "")))
    import_id = response.json()["import_id"]

    async def begun() -> bool:
        return bool((await capture.job(import_id))["rows_done"])

    hasty = settings.model_copy(update={"idle_in_transaction_timeout": timedelta(seconds=3)})  # what a frozen one holds
    async with worker(hasty) as frozen:
        await eventually(begun, within=60)
        frozen.send_signal(signal.SIGSTOP)
        async with worker(settings):
            job = await done(capture, import_id)
            frozen.send_signal(signal.SIGCONT)
            await check(capture, job)
            again = await capture.post_file(table(("email",), ("p1@example.com",)))
            assert (await done(capture, again.json()["import_id"]))["failed"] == 0
        await check(capture, await capture.job(import_id))
