"""`throughline export` of journeys and credits against a running system that is killed meanwhile."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import orjson
import pytest
import pytest_asyncio
from pyarrow import parquet

from shared.service import free_port
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from shared.testing import token as token_for
from tests.service.attribution_facts import Teller
from tests.service.runtime_world import environment_of
from throughline.services import service_code

TOUCHES = 110_000
FILL = """
INSERT INTO touches
    (origin, touch_id, position, lead_id, occurred_at, received_at, type, channel, channel_rule, automated)
SELECT 'api', 't' || n, n, 'lead' || n % 40000, now(), now(), 'page_view', 'Direct', 'direct', false
FROM generate_series(1, $1::integer) AS n
"""
Command = Callable[..., Awaitable[tuple[int, str, str]]]


class System:
    """Attribution's api and worker as a process of their own, and commands beside it."""

    def __init__(self, settings: Settings) -> None:
        port, management = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            **environment_of(settings, port=str(port), management_port=str(management), public_url=self.url),
            "THROUGHLINE_TOKEN": token_for(settings),
        }
        self._process: Process | None = None

    async def start(self) -> None:
        words = (sys.executable, "-m", "throughline", "run", "attribution", "api", "worker")
        self._process = await asyncio.create_subprocess_exec(*words, env=self._environment, stdout=DEVNULL)

        async def answers() -> bool:
            async with httpx.AsyncClient() as client:
                try:
                    return (await client.get(f"{self.url}/attribution/openapi.json")).is_success
                except httpx.TransportError:
                    return False

        await eventually(answers, within=150)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def begin(self, *arguments: str) -> Process:
        words = (sys.executable, "-m", "throughline", "export", *arguments)
        return await asyncio.create_subprocess_exec(*words, env=self._environment, stdout=PIPE, stderr=PIPE)

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        made = await self.begin(*arguments)
        out, err = await made.communicate()
        return made.returncode or 0, out.decode(), err.decode()


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


@pytest_asyncio.fixture
async def system(settings: Settings) -> AsyncIterator[System]:
    made = System(settings.model_copy(update={"lease_seconds": 10.0}))
    await made.start()
    try:
        yield made
    finally:
        await made.kill()


@pytest.mark.slow
async def test_parts_are_all_there_though_the_system_is_killed_while_it_writes(
    attribution: Harness, system: System, tmp_path: Path
) -> None:
    async with attribution.runtime.database.reading() as connection:
        await connection.execute(FILL, TOUCHES)
    folder = tmp_path / "journeys"
    words = ("journeys", "--format", "parquet", "--parts", str(folder))
    first = await system.begin(*words)

    async def one_is_written() -> None:
        async with attribution.runtime.database.reading() as connection:
            assert await connection.fetchval("SELECT parts FROM exports")

    await eventually(one_is_written, within=60)
    await system.kill()
    _, err = await first.communicate()
    assert (first.returncode, b"did not answer" in err) == (1, True)
    await system.start()

    status, out, err_text = await system.run(*words)
    assert status == 0, err_text
    files = sorted(folder.glob("*.parquet"))
    assert out.startswith(f"{len(files)} parts")
    assert len(files) == 3
    names = [name for file in files for name in parquet.read_table(file, columns=["touch_id"])["touch_id"].to_pylist()]
    assert len(names) == len(set(names)) == TOUCHES
    assert (await system.run(*words))[0] == 0
    status, _, err_text = await system.run(*words, "--since", "2026-11-01")
    assert (status, "another export" in err_text) == (1, True)


@pytest.mark.slow
async def test_credits_come_as_one_file_and_what_makes_no_sense_is_said(
    attribution: Harness, system: System, tmp_path: Path
) -> None:
    teller = Teller()
    await attribution.deliver(teller.touch("nora", 3, touch_id="a"), teller.conversion("nora", 1, 900))
    status, out, err = await system.run("credits", "--model", "linear")
    assert status == 0, err
    assert [(row["touch_id"], row["value_minor"]) for row in map(orjson.loads, out.splitlines())] == [("a", 900)]
    file = tmp_path / "credits.parquet"
    assert (await system.run("credits", "--format", "parquet", "--output", str(file)))[0] == 0
    assert parquet.read_table(file).num_rows >= 8
    for words, sentence in (
        (("leads", "--parts", str(tmp_path / "x")), "--parts are for"),
        (("credits", "--parts", "x", "--output", "y"), "not both"),
        (("credits", "--format", "csv"), "format"),
        (("credits", "--model", "nothing"), "no such model"),
        (("journeys", "--model", "linear", "--parts", str(tmp_path / "y")), "only credits are of a model"),
    ):
        status, _, err = await system.run(*words)
        assert status != 0
        assert sentence in err, err
        assert "Traceback" not in err
