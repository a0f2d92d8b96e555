"""`throughline dead`: records of Kafka that could not be read. Whatever is done to one is written to the audit log."""

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
SELECT id, topic, partition, "offset", error, received_at::text AS received_at FROM dead_letters ORDER BY id LIMIT $1
"""
SHOW = """
SELECT id, consumer, topic, partition, "offset", key, headers, value, error, received_at::text AS received_at
FROM dead_letters WHERE id = $1
"""
IDS = 'SELECT id FROM dead_letters WHERE $1::bigint IS NULL OR id = $1 ORDER BY topic, partition, "offset"'
DISCARD = 'DELETE FROM dead_letters WHERE id = $1 RETURNING topic, partition, "offset", error'

LetterId = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="As `dead list` shows it.")]
MaybeId = Annotated[int | None, typer.Argument(metavar="[ID]", min=1, max=LARGEST_ID, help="Only this one.")]


def list_dead(
    service: MaybeService = None,
    limit: Limit = 200,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List what could not be read, and why."""
    columns = ("id", "topic", "partition", "offset", "error", "received_at")
    list_rows(service, data_dir, columns, LIST, limit, as_json=as_json)


def show(service: Service, letter_id: LetterId, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show one record as it came; bytes that are no text are written out."""

    async def work(runtime: "Runtime") -> dict[str, Any]:
        async with runtime.database.reading() as connection:
            row = await connection.fetchrow(SHOW, letter_id)
        if row is None:
            raise CommandFailed(f"{service} has no dead letter {letter_id}.")
        headers = [[name, value and _text(bytes.fromhex(value))] for name, value in row["headers"]]
        return {**row, "key": _text(row["key"]), "headers": headers, "value": _text(row["value"])}

    print(json.dumps(with_runtime(service, data_dir, work), indent=2))


def retry(service: Service, letter_id: MaybeId = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> int:
    """Read dead letters again, as after an update that knows their type; ends with status 1 where some stay."""

    async def work(runtime: "Runtime") -> list[tuple[int, bool]]:
        async with runtime.database.reading() as connection:
            ids = [row["id"] for row in await connection.fetch(IDS, letter_id)]
        processor = await processor_of(runtime)
        done = [(number, await processor.read_letter(number)) for number in ids]
        async with runtime.database.transaction() as tx:
            for number, read in done:
                await tx.connection.execute(AUDIT, "dead.retried", str(number), {"read": read})
        return done

    done = with_runtime(service, data_dir, work)
    for number, read in done:
        print(f"{number}: {'read' if read else 'still no fact'}")
    if not done:
        print(f"{service} has no such dead letter." if letter_id else f"{service} has no dead letters.")
    return 0 if all(read for _, read in done) else 1


def discard(
    service: Service,
    letter_id: LetterId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Forget a dead letter. Kafka keeps the record as long as its topic does. Without --yes nothing is done."""

    async def work(runtime: "Runtime") -> str:
        if not yes:
            raise NotDone(f"This would discard dead letter {letter_id} of {service}: say --yes to do it.")
        async with runtime.database.transaction() as tx:
            gone = await tx.connection.fetchrow(DISCARD, letter_id)
            if gone is None:
                raise CommandFailed(f"{service} has no dead letter {letter_id}.")
            await tx.connection.execute(AUDIT, "dead.discarded", str(letter_id), dict(gone))
        return f"Discarded what {gone['topic']}/{gone['partition']} holds at {gone['offset']}."

    print(with_runtime(service, data_dir, work))


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "backslashreplace")
