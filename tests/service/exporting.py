"""Exports as a test asks for them, has them written and reads them."""

import gzip
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from pyarrow import parquet

from services.attribution.exports.handlers import Exporter
from shared.db import Connection, Database
from shared.testing import Harness
from tests.service.attribution_random import random_history


def rows_in(content: bytes, form: str) -> list[dict[str, Any]]:
    """The rows of a file, times as text."""
    if form == "parquet":
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
        text = orjson.dumps(rows, option=orjson.OPT_UTC_Z)
    else:
        lines = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        text = b"[" + b",".join(lines.splitlines()) + b"]"
    found: list[dict[str, Any]] = orjson.loads(text)
    return found


async def read(service: Harness, kind: str, form: str = "ndjson", **params: str) -> list[dict[str, Any]]:
    answer = await service.client.get(f"/v1/exports/{kind}", params={"format": form, **params})
    assert answer.status_code == 200, answer.text
    return rows_in(answer.content, form)


async def asked(service: Harness, **body: Any) -> dict[str, Any]:
    answer = await service.client.post("/v1/exports", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def shown(service: Harness, export: dict[str, Any]) -> dict[str, Any]:
    answer = await service.client.get(f"/v1/exports/{export['export_id']}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@asynccontextmanager
async def a_worker(service: Harness) -> AsyncIterator[Exporter]:
    exporter = Exporter(service.consumer_runtime)
    yield exporter
    await exporter.close()


async def written(service: Harness, export: dict[str, Any], exporter: Exporter | None = None) -> dict[str, Any]:
    """Let a worker write until the export is done."""
    if exporter is None:
        async with a_worker(service) as worker:
            return await written(service, export, worker)
    for _ in range(200):
        await exporter.step()
        body = await shown(service, export)
        if body["state"] == "done":
            return body
    raise AssertionError("the export is not done")


async def part(service: Harness, export: dict[str, Any], number: int, **headers: str) -> Any:
    return await service.client.get(f"/v1/exports/{export['export_id']}/parts/{number}", headers=headers)


async def all_rows(service: Harness, export: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(1, (await shown(service, export))["parts"] + 1):
        answer = await part(service, export, number)
        assert answer.status_code == 200, answer.text
        rows += rows_in(answer.content, export["format"])
    return rows


async def filled(service: Harness, seeds: range = range(500, 504)) -> None:
    for seed in seeds:
        await service.deliver(*random_history(seed))


async def swap(connection: Connection) -> None:
    """Another projection with the same content, as a rebuild swaps it in."""
    await connection.execute("CREATE SCHEMA attribution_build")
    for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'attribution_projection'"):
        table = row["tablename"]
        await connection.execute(f"CREATE TABLE attribution_build.{table} AS TABLE attribution_projection.{table}")
    async with connection.transaction():
        await connection.execute("ALTER SCHEMA attribution_projection RENAME TO attribution_old")
        await connection.execute("ALTER SCHEMA attribution_build RENAME TO attribution_projection")


async def end_who_waits(database: Database) -> int:
    """End the connections that wait for a lock; answers how many."""
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.reading() as connection:
        return int(await connection.fetchval(f"SELECT count(pg_terminate_backend(pid)) {waiting}"))
