"""What commands share that work on tables which every service has."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from throughline.operations import print_table, servers, service_name
from throughline.services import SERVICES, service_code
from throughline.settings import load_settings

if TYPE_CHECKING:
    from shared.kafka import Processor
    from shared.service import Runtime

AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ('cli', $1, $2, $3)"
LARGEST_ID = 2**63 - 1

T = TypeVar("T")
MaybeService = Annotated[
    str | None, typer.Option("--service", parser=service_name, metavar="SERVICE", help="Only this one.")
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many of a service.")]


def list_rows(
    service: str | None, data_dir: Path, columns: Sequence[str], statement: str, *arguments: object, as_json: bool
) -> None:
    """Print what a statement finds in one service, or in each."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        async with runtime.database.reading() as connection:
            found = await connection.fetch(statement, *arguments)
        return [{"service": runtime.service, **row} for row in found]

    rows = [row for name in ((service,) if service else SERVICES) for row in with_runtime(name, data_dir, work)]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        named = ("service", *columns)
        print_table(named, [tuple(row[column] for column in named) for row in rows])


async def processor_of(runtime: "Runtime") -> "Processor":
    """The handlers that carry out a batch of the projection that serves."""
    from shared.service import make_processor, projection_version

    async with runtime.database.reading() as connection:
        version = await projection_version(connection)
    return make_processor(service_code(runtime.service), runtime, version)


def with_runtime(service: str, data_dir: Path, work: "Callable[[Runtime], Awaitable[T]]") -> T:
    """Do something with a service's runtime."""
    settings = load_settings(data_dir)
    from shared.service import build_runtime

    async def run() -> T:
        runtime = build_runtime(service, settings)
        try:
            return await work(runtime)
        finally:
            await runtime.database.close()

    with servers(settings):
        return asyncio.run(run())
