"""`throughline parked`: facts that could not be carried out. Whatever is done to one is written to the audit log."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from throughline.errors import CommandFailed, NotDone
from throughline.operations import Service, print_table, servers, service_name
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir
from throughline.services import SERVICES, service_code
from throughline.settings import load_settings

if TYPE_CHECKING:
    from shared.service import Runtime

LIST = """
SELECT id, key AS lead_id, type, slug, attempts, parked_at::text AS parked_at FROM parked_events
WHERE $1::text IS NULL OR key = $1 ORDER BY key, id LIMIT $2
"""
SHOW = """
SELECT id, key AS lead_id, consumer, topic, partition, "offset", event_id, type, slug, error, attempts,
       parked_at::text AS parked_at, convert_from(value, 'UTF8') AS value
FROM parked_events WHERE id = $1
"""
KEYS = "SELECT DISTINCT key FROM parked_events WHERE $1::text IS NULL OR key = $1 ORDER BY key"
LEFT = "SELECT count(*) FROM parked_events WHERE key = $1"
DISCARD = "DELETE FROM parked_events WHERE id = $1 RETURNING key, event_id, type, slug"
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ('cli', $1, $2, $3)"

T = TypeVar("T")
Lead = Annotated[str | None, typer.Option("--lead", help="Only what is parked for this lead.")]
ParkedId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="As `parked list` shows it.")]


def list_parked(
    service: Annotated[
        str | None,
        typer.Option(parser=service_name, metavar="SERVICE", help="Only this one."),
    ] = None,
    lead: Lead = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many of a service.")] = 200,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List what is parked: the cause first, then what waits behind it."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        async with runtime.database.reading() as connection:
            found = await connection.fetch(LIST, lead, limit)
        return [{"service": runtime.service, **row} for row in found]

    rows = [row for name in ((service,) if service else SERVICES) for row in with_runtime(name, data_dir, work)]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        columns = ("service", "id", "lead_id", "type", "slug", "attempts", "parked_at")
        print_table(columns, [tuple(row[column] for column in columns) for row in rows])


def show(service: Service, parked_id: ParkedId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show one parked fact and why it failed. Personal data in it is encrypted and stays so."""

    async def work(runtime: "Runtime") -> dict[str, Any]:
        async with runtime.database.reading() as connection:
            row = await connection.fetchrow(SHOW, parked_id)
        if row is None:
            raise CommandFailed(f"Nothing is parked in {service} under {parked_id}.")
        return {**row, "value": json.loads(row["value"])}

    print(json.dumps(with_runtime(service, data_dir, work), indent=2))


def retry(service: Service, lead: Lead = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> int:
    """Try parked facts again, each lead's in their order; ends with status 1 where some fail again."""

    async def work(runtime: "Runtime") -> list[tuple[str, bool]]:
        async with runtime.database.reading() as connection:
            keys = [row["key"] for row in await connection.fetch(KEYS, lead)]
        return [(key, await _retry(runtime, key)) for key in keys]

    done = with_runtime(service, data_dir, work)
    for key, carried_out in done:
        print(f"{key}: {'carried out' if carried_out else 'still parked'}")
    if not done:
        print(f"Nothing is parked in {service}.")
    return 0 if all(carried_out for _, carried_out in done) else 1


def discard(
    service: Service,
    parked_id: ParkedId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Give up a parked fact for good, and carry out what waited behind it. Without --yes nothing is done."""

    async def work(runtime: "Runtime") -> str:
        async with runtime.database.reading() as connection:
            row = await connection.fetchrow(SHOW, parked_id)
        if row is None:
            raise CommandFailed(f"Nothing is parked in {service} under {parked_id}.")
        if not yes:
            raise NotDone(f"This would discard {row['type']} of lead {row['lead_id']}: say --yes to do it.")
        async with runtime.database.transaction() as tx:
            gone = await tx.connection.fetchrow(DISCARD, parked_id)
            if gone is not None:
                await tx.connection.execute(AUDIT, "parked.discarded", gone["event_id"], dict(gone))
        await _retry(runtime, row["lead_id"])
        async with runtime.database.reading() as connection:
            left = await connection.fetchval(LEFT, row["lead_id"])
        return f"Discarded {row['type']} of lead {row['lead_id']}; {left} of its facts are still parked."

    print(with_runtime(service, data_dir, work))


async def _retry(runtime: "Runtime", key: str) -> bool:
    """Try a lead's facts again, through the same handlers as a batch."""
    from shared.service import make_processor, projection_version

    async with runtime.database.reading() as connection:
        version = await projection_version(connection)
    done = await make_processor(service_code(runtime.service), runtime, version).retry(key)
    async with runtime.database.transaction() as tx:
        await tx.connection.execute(AUDIT, "parked.retried", key, {"carried_out": done})
    return done


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
