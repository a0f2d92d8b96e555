"""`throughline dead`: records of Kafka that could not be read. Whatever is done to one is written to the audit log."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from throughline.errors import CommandFailed, NotDone
from throughline.operations import Service, print_table, service_name
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir
from throughline.parked import AUDIT, with_runtime
from throughline.services import SERVICES, service_code

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

LetterId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="As `dead list` shows it.")]
MaybeId = Annotated[int | None, typer.Argument(metavar="[ID]", min=1, max=2**63 - 1, help="Only this one.")]


def list_dead(
    service: Annotated[
        str | None,
        typer.Option(parser=service_name, metavar="SERVICE", help="Only this one."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many of a service.")] = 200,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List what could not be read, and why."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        async with runtime.database.reading() as connection:
            found = await connection.fetch(LIST, limit)
        return [{"service": runtime.service, **row} for row in found]

    rows = [row for name in ((service,) if service else SERVICES) for row in with_runtime(name, data_dir, work)]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        columns = ("service", "id", "topic", "partition", "offset", "error", "received_at")
        print_table(columns, [tuple(row[column] for column in columns) for row in rows])


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
        from shared.service import make_processor, projection_version

        async with runtime.database.reading() as connection:
            ids = [row["id"] for row in await connection.fetch(IDS, letter_id)]
            version = await projection_version(connection)
        processor = make_processor(service_code(runtime.service), runtime, version)
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
