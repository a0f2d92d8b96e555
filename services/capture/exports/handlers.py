"""An export as it is read: page after page out of one snapshot, however long that takes."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, assert_never

from services.capture.exports import queries
from services.capture.exports.files import ExportKind, as_csv, as_ndjson, header, person_row
from services.capture.imports.rows import Format
from shared.db import TRANSIENT, Connection, have_patience
from shared.errors import Unavailable
from shared.personal import PersonKeys
from shared.service import Runtime

AT_ONCE = 2


class Exports:
    """The exports that this process is writing; each holds a connection of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._open = 0

    async def read(self, kind: ExportKind, form: Format, since: datetime | None) -> AsyncGenerator[bytes]:
        """The file, piece by piece. Raises Unavailable; once something was written, whatever cuts the answer short."""
        if self._open >= AT_ONCE:
            raise Unavailable(f"{AT_ONCE} exports are being read already; try again when one is done", retry_after=5)
        self._open += 1
        try:
            connection = await self._runtime.database.connect()
            try:
                await self._runtime.keys.refuse_while_awaited(connection)
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    await have_patience(connection)  # who reads nothing for so long is not there any more
                    if form == "csv":
                        yield header(kind)
                    async for rows in _pages(kind, since, connection, self._runtime.keys):
                        yield as_csv(kind, rows) if form == "csv" else as_ndjson(rows)
            finally:
                with suppress(*TRANSIENT):
                    await connection.close(timeout=2)
        except TRANSIENT as exc:
            raise Unavailable(f"the database did not answer: {type(exc).__name__}") from exc
        finally:
            self._open -= 1


async def _pages(
    kind: ExportKind, since: datetime | None, connection: Connection, keys: PersonKeys
) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    match kind:
        case "leads":
            last = ""
            while persons := await queries.persons_after(connection, keys, last, since):
                yield [person_row(family, consents) for family, consents in persons]
                last = persons[-1][0].root.lead_id
        case "consent":
            last = ""
            while rows := await queries.ledger_after(connection, last, since):
                yield rows
                last = rows[-1]["event_id"]
        case "deliveries":
            place = ("", "")
            while rows := await queries.deliveries_after(connection, place, since):
                yield rows
                place = rows[-1]["source_id"], rows[-1]["delivery_id"]
        case _:
            assert_never(kind)
