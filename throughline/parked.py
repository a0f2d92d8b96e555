"""`throughline parked`: facts that could not be carried out. Whatever is done to one is written to the audit log."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from throughline.errors import CommandFailed, NotDone
from throughline.operations import Service
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir
from throughline.tables import AUDIT, LARGEST_ID, Limit, MaybeService, list_rows, processor_of, with_runtime

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

Lead = Annotated[str | None, typer.Option("--lead", help="Only what is parked for this lead.")]
ParkedId = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="As `parked list` shows it.")]


def list_parked(
    service: MaybeService = None,
    lead: Lead = None,
    limit: Limit = 200,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List what is parked: the cause first, then what waits behind it."""
    columns = ("id", "lead_id", "type", "slug", "attempts", "parked_at")
    list_rows(service, data_dir, columns, LIST, lead, limit, as_json=as_json)


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
    done = await (await processor_of(runtime)).retry(key)
    async with runtime.database.transaction() as tx:
        await tx.connection.execute(AUDIT, "parked.retried", key, {"carried_out": done})
    return done
