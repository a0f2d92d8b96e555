"""`throughline import` and `export` against a running system."""

import asyncio
import csv
import gzip
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from shared.service import free_port
from shared.settings import Settings
from shared.testing import eventually
from shared.testing import token as token_for
from tests.service.runtime_world import environment_of

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest_asyncio.fixture
async def throughline(settings: Settings, tmp_path: Path) -> AsyncIterator[Command]:
    """Commands beside a process that serves and works; Kafka is away."""
    port, management = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    environment = environment_of(settings, port=str(port), management_port=str(management), public_url=url)
    words = (sys.executable, "-m", "throughline")

    async def run(*arguments: str) -> tuple[int, str, str]:
        pipe = asyncio.subprocess.PIPE
        own = {**environment, "THROUGHLINE_TOKEN": token_for(settings)}
        made = await asyncio.create_subprocess_exec(*words, *arguments, env=own, stdout=pipe, stderr=pipe)
        out, err = await made.communicate()
        return made.returncode or 0, out.decode(), err.decode()

    server = await asyncio.create_subprocess_exec(
        *words, "run", "capture", "api", "worker", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:

        async def answers() -> bool:
            async with httpx.AsyncClient() as client:
                try:
                    return (await client.get(f"{url}/capture/openapi.json")).is_success
                except httpx.TransportError:
                    return False

        await eventually(answers, within=60)
        yield run
    finally:
        server.kill()
        await server.wait()


@pytest.mark.slow
async def test_a_file_goes_in_with_its_bad_rows_told_and_comes_out_again(throughline: Command, tmp_path: Path) -> None:
    file, errors, mapping = tmp_path / "people.csv.gz", tmp_path / "bad.csv", tmp_path / "mapping.json"
    rows = "Mail,Firma\n" + "".join(f"p{n}@example.com,Company {n}\n" for n in range(300)) + "nobody,X\n"
    file.write_bytes(gzip.compress(rows.encode()))
    mapping.write_text(json.dumps({"mapping": {"email": "Mail", "company": "Firma"}}))

    status, out, _ = await throughline("import", str(file), "--mapping", str(mapping), "--preview")
    assert (status, json.loads(out)["rows"][0]["outcome"]) == (0, "created")
    status, out, _ = await throughline("import", str(file), "--dry-run")
    assert (status, "nothing was kept" in out) == (2, True)
    status, out, err = await throughline("import", str(file), "--errors", str(errors), "--json")
    job = json.loads(out)
    assert (status, job["created"], job["failed"]) == (2, 300, 1)
    assert "importing" in err
    (bad,) = csv.DictReader(errors.read_text("utf-8-sig").splitlines())
    assert (bad["line"], bad["Mail"]) == ("302", "nobody")

    everything = tmp_path / "leads.csv"
    assert (await throughline("export", "leads", "--format", "csv", "--output", str(everything)))[0] == 0
    assert len(list(csv.DictReader(everything.read_text("utf-8-sig").splitlines()))) == 300
    status, out, _ = await throughline("import", str(everything))
    assert (status, out.strip()) == (0, "leads: 0 created, 0 updated, 300 unchanged, 0 failed")


@pytest.mark.slow
async def test_what_cannot_be_imported_is_said_in_a_sentence_and_leaves_nothing_waiting(
    throughline: Command, tmp_path: Path, settings: Settings
) -> None:
    file = tmp_path / "colors.csv"
    file.write_text("color\nred\n")
    empty = tmp_path / "empty.csv"
    empty.touch()
    for words, status, sentence in (
        (("import", str(file)), 1, "no field says whom"),
        (("import", str(tmp_path / "none.csv")), 1, "cannot be read"),
        (("import", str(empty)), 1, "is empty"),
        (("import", str(file), "--mapping", str(file)), 1, "is not JSON"),
        (("import", str(file), "--url", "http://127.0.0.1:1"), 1, "did not answer"),
        (("import", str(file), "--token", "wrong"), 1, "token"),
        (("import", str(file), "--kind", "cats"), 64, "cats"),
        (("export", "leads", "--since", "yesterday"), 1, "since"),
    ):
        code, _, err = await throughline(*words)
        assert code == status, err
        assert sentence in err
        assert "Traceback" not in err
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        rows = await connection.fetch("SELECT state FROM capture.imports")
        assert [row["state"] for row in rows] == ["cancelled"] * 3
    finally:
        await connection.close()
