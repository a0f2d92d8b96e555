"""Writing exports: all at once to who waits for it, or part by part into the database, to be fetched later."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from services.attribution.errors import TooManyExports
from services.attribution.exports import queries
from services.attribution.exports.domain import PART_ROWS, Format
from services.attribution.exports.files import Rows, Writer, writer
from services.attribution.exports.queries import Export, Part, Place, Wanted
from shared.db import TRANSIENT, Tx
from shared.errors import Unavailable
from shared.events import LeadErased
from shared.ids import LeadId, new_id
from shared.service import Runtime
from shared.telemetry import log

AT_ONCE = 2
MOST_WAITING = 20
KEPT_DAYS = 7
MOST_FAILURES = 20
STATEMENT_S = 330.0


async def add_export(wanted: Wanted, form: Format, subject: str, tx: Tx) -> Export:
    """Queue an export; the worker writes it. Raises TooManyExports."""
    if await queries.unfinished(tx.connection) >= MOST_WAITING:
        raise TooManyExports(f"{MOST_WAITING} exports wait to be written; try again when some are done")
    await queries.note(tx.connection, subject, "export.created", wanted, form)
    return await queries.add_export(tx.connection, new_id(), wanted, form, subject)


async def on_lead_erased(event: LeadErased, tx: Tx) -> None:
    """Parts that may hold pages and contents of an erased person's touches are gone."""
    await queries.erase_parts(tx.connection, event.lead_id)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the data, as long as the connection holds."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    projection: int
    taken_at: datetime

    async def is_current(self) -> bool:
        """Whether the tables are still those of the snapshot: a projection that was swapped in is empty to it."""
        return await queries.projection_of(self.connection) == self.projection

    async def close(self) -> None:
        """Let go of it."""
        with suppress(*TRANSIENT):
            await self.connection.close(timeout=2)


async def take_snapshot(runtime: Runtime) -> Snapshot:
    """A connection of one's own that sees the data as they are now. Raises Unavailable."""
    try:
        connection = await runtime.database.connect(command_timeout_s=STATEMENT_S)
    except TRANSIENT as exc:
        raise Unavailable(f"the database did not answer: {type(exc).__name__}") from exc
    try:
        await connection.transaction(isolation="repeatable_read", readonly=True).start()
        return Snapshot(connection, await queries.prepare_snapshot(connection), runtime.clock.now())
    except BaseException:
        connection.terminate()
        raise


class Streams:
    """The exports that this process writes to those who wait; each holds a connection of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._open = 0

    async def read(self, wanted: Wanted, form: Format) -> AsyncGenerator[bytes]:
        """The file, piece by piece. Raises Unavailable; once something was written, whatever cuts the answer short."""
        if self._open >= AT_ONCE:
            raise Unavailable(f"{AT_ONCE} exports are being read already; try again when one is done", retry_after=5)
        self._open += 1
        try:
            snapshot = await take_snapshot(self._runtime)
            try:
                async for piece in self._pieces(snapshot, wanted, writer(wanted.kind, form, packed=False)):
                    yield piece
            finally:
                await snapshot.close()
        except TRANSIENT as exc:
            raise Unavailable(f"the database did not answer: {type(exc).__name__}") from exc
        finally:
            self._open -= 1

    async def _pieces(self, snapshot: Snapshot, wanted: Wanted, file: Writer) -> AsyncGenerator[bytes]:
        place: Place | None = None
        while True:
            page = await queries.rows_after(snapshot.connection, wanted, place)
            if not await snapshot.is_current():
                raise Unavailable("the data were built anew meanwhile; begin again")
            yield await asyncio.to_thread(file.write, page.rows)
            if page.place is None:
                break
            place = page.place
        yield await asyncio.to_thread(file.end)


class Exporter:
    """Writes the exports that wait, one after another and part by part, each from one snapshot while that lasts.

    A process that dies, or a database that goes away, costs the snapshot: the writing goes on after the last part with
    another one, and the export tells how many there were.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._snapshot: Snapshot | None = None
        self._of: str | None = None

    async def step(self) -> timedelta | None:
        """Write the next part of the oldest export; answers no wait when there is more to do."""
        async with self._runtime.database.transaction() as tx:
            await queries.drop_old_exports(tx.connection, KEPT_DAYS)
            job = await queries.next_export(tx.connection)
        if job is None:
            await self.close()
            return None
        try:
            snapshot = await self._snapshot_for(job)
            if snapshot is not None:
                await self._write_part(job, snapshot)
        except BaseException:
            await self.close()
            raise
        return timedelta(0)

    async def _snapshot_for(self, job: Export) -> Snapshot | None:
        """The snapshot that the export is read from; None when it was tried too often."""
        if self._snapshot is not None and self._of == job.export_id and await self._snapshot.is_current():
            return self._snapshot
        await self.close()
        async with self._runtime.database.transaction() as tx:
            if job.failures >= MOST_FAILURES:
                log.error("export_given_up", export_id=job.export_id, kind=job.kind)
                await queries.give_up(tx.connection, job.export_id)
                return None
        snapshot = self._snapshot = await take_snapshot(self._runtime)
        self._of = job.export_id
        total = await queries.total_of(snapshot.connection, job)
        async with self._runtime.database.transaction() as tx:
            await queries.begin_writing(tx.connection, job.export_id, total)
        return snapshot

    async def _write_part(self, job: Export, snapshot: Snapshot) -> None:
        part, place = await _part_after(snapshot, job)
        if not await snapshot.is_current():
            return
        async with self._runtime.database.transaction() as tx:
            stored = await queries.add_part(tx.connection, job, part, place)
        if not stored:
            await self.close()

    async def close(self) -> None:
        """Let go of the snapshot."""
        snapshot, self._snapshot, self._of = self._snapshot, None, None
        if snapshot is not None:
            await snapshot.close()


async def _part_after(snapshot: Snapshot, job: Export) -> tuple[Part, Place | None]:
    """The next part of an export, and its last row unless that is the last of all."""
    file = writer(job.kind, job.format, packed=True)
    content, rows, done = bytearray(), 0, 0
    place, revealing = job.after, set[LeadId]()
    first: str | None = None
    last: str | None = None
    while True:
        page = await queries.rows_after(snapshot.connection, job, place)
        content += await asyncio.to_thread(file.write, page.rows)
        rows, done, place = rows + len(page.rows), done + page.done, page.place
        if job.kind == "journeys" and page.rows:
            first, last = first or page.rows[0]["told_lead_id"], page.rows[-1]["told_lead_id"]
            revealing |= _revealing(page.rows)
        if place is None or rows >= PART_ROWS:
            break
    content += await asyncio.to_thread(file.end)
    part = Part(
        rows=rows,
        done=done,
        content=bytes(content),
        etag=hashlib.sha256(content).hexdigest()[:32],
        read_at=snapshot.taken_at,
        leads=sorted(revealing),
        first_lead=LeadId(first) if first else None,
        last_lead=LeadId(last) if last else None,
    )
    return part, place


def _revealing(rows: Rows) -> set[LeadId]:
    """Whose pages and contents are in these rows."""
    return {row["told_lead_id"] for row in rows if row["page"] is not None or row["content"] is not None}
