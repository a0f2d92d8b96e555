"""The worker's part of imports: rows by the hundred, each batch in one transaction with the place where it ends."""

import asyncio
import time
import zlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import orjson

from services.capture.imports import queries
from services.capture.imports.domain import BadRow, Told
from services.capture.imports.files import piece_at
from services.capture.imports.queries import Counts, Import
from services.capture.imports.rows import Place, Row
from services.capture.imports.telling import Outcome, Teller
from services.capture.leads.domain import Identifier
from services.capture.leads.queries import identifiers_of
from shared.db import Tx
from shared.faults import failpoint
from shared.ids import LeadId, new_id
from shared.service import Runtime
from shared.telemetry import counter, log

ROWS = counter("throughline_import_rows_total", "Rows of imports by what became of them", ["kind", "state"])
FIRST_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 200, 100, 500
BATCH_S = 0.3
READ_AT_ONCE = 64 * 1024  # some hundred rows
READ_BETWEEN = 8
MOST_BYTES = 4 * 1024 * 1024  # in a batch, unless one row is longer
SLICE_S = 5.0
FURTHEST_BEHIND = 20_000
BEHIND_PAUSE = timedelta(seconds=0.5)


_Read = tuple[Row, Told | BadRow]


class _TakenBack(Exception):
    """A dry run ends so."""


class Imports:
    """Carries imports out: one at a time, in turns of some seconds, so that a small one does not wait for a large one.

    Live calls come first: batches are short, and nothing is read while the relay is far behind.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._owner = new_id()

    async def run(self) -> timedelta | None:
        """Carry out what is queued; answers when to look again."""
        while True:
            if await self._relay_is_behind():
                return BEHIND_PAUSE
            async with self._runtime.database.reading() as connection:
                job = await queries.claim(connection, self._owner, self._runtime.settings.lease_seconds)
            if job is None:
                return None
            await _Turn(job, self._owner, self._runtime).run()

    async def _relay_is_behind(self) -> bool:
        async with self._runtime.database.reading() as connection:
            behind = await connection.fetchval(queries.BEHIND, self._runtime.database.log)
        return int(behind or 0) > FURTHEST_BEHIND


class _Turn:
    """Some seconds of one import."""

    def __init__(self, job: Import, owner: str, runtime: Runtime) -> None:
        self._job = job
        self._owner = owner
        self._runtime = runtime
        self._reader = job.shape.reader(job.format)
        self._read_up_to = job.position
        self._place = self._taken = job.place
        self._piece = memoryview(b"")
        self._waiting: deque[Row] = deque()
        self._size = FIRST_BATCH
        self._rate = job.rate
        assert job.told_at is not None, "an import is dated when it is queued"
        self._teller = Teller(job, job.told_at, runtime)

    async def run(self) -> None:
        """Go on until the file ends, the turn is over, or the import is somebody else's."""
        until = time.monotonic() + SLICE_S
        ahead = asyncio.create_task(self._next())
        try:
            while time.monotonic() < until:
                began = time.monotonic()
                batch = await ahead
                if not batch:
                    await self._end()
                    return
                ahead = asyncio.create_task(self._next())  # read while the database works
                if not await self._carry_out(batch, began):
                    return
                took = time.monotonic() - began
                self._size = max(SMALLEST_BATCH, min(LARGEST_BATCH, int(self._size * min(BATCH_S / took, 2))))
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _next(self) -> list[_Read]:
        """The next rows and what they say, a few at a time, so that whatever else runs here is not held up."""
        await self._read()
        batch: list[_Read] = []
        for row in [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]:
            self._taken = Place(row.end, row.next_line)
            batch.append((row, self._teller.read(row)))
            if len(batch) % READ_BETWEEN == 0:
                await asyncio.sleep(0)
        return batch

    async def _read(self) -> None:
        size = self._job.file_bytes or 0
        while self._read_up_to < size and not self._has_enough():
            if not self._piece:
                self._piece = memoryview(await piece_at(self._job, self._read_up_to, self._runtime))
            if not self._piece:
                return
            part, self._piece = bytes(self._piece[:READ_AT_ONCE]), self._piece[READ_AT_ONCE:]
            self._read_up_to += len(part)
            self._waiting.extend(self._reader.feed(part, last=self._read_up_to >= size))

    def _has_enough(self) -> bool:
        """Whether a batch is there, by its rows, or because they are long."""
        began = self._taken.position
        return len(self._waiting) >= self._size or (bool(self._waiting) and self._read_up_to - began >= MOST_BYTES)

    async def _carry_out(self, batch: Sequence[_Read], began: float) -> bool:
        """Carry out rows and move on behind them, or neither. False if the import is not this worker's any more."""
        job, after = self._job, Place(batch[-1][0].end, batch[-1][0].next_line)
        async with self._runtime.database.transaction() as tx:
            if not await tx.connection.fetchval(queries.HOLD, job.import_id, self._owner, self._place.position):
                return False
            outcomes = await self._tell(batch, tx)
            counts = _counted(outcomes)
            if counts.failed:
                await self._keep_bad(batch, outcomes, tx)
            rate = _smoothed(self._rate, len(batch) / max(time.monotonic() - began, 0.001))
            lease = self._runtime.settings.lease_seconds
            await queries.advance(tx.connection, job.import_id, after, counts, rate, lease)
            failpoint("import_before_commit")
        failpoint("import_after_commit")
        self._place, self._rate = after, rate
        for state in ("created", "updated", "unchanged", "failed"):
            if number := getattr(counts, state):
                ROWS.labels(job.kind, state).inc(number)
        return True

    async def _tell(self, batch: Sequence[_Read], tx: Tx) -> list[Outcome]:
        said = [each for _, each in batch]
        if not self._job.dry_run:
            return await self._teller.tell(said, tx)
        outcomes: list[Outcome] = []
        held: dict[LeadId, list[Identifier]] = {}
        mark = tx.mark()
        try:
            async with tx.connection.transaction():
                outcomes = await self._teller.tell(said, tx)
                if self._job.kind == "leads":
                    held = await identifiers_of(
                        tx.connection, sorted({each.lead_id for each in outcomes if each.lead_id})
                    )
                raise _TakenBack
        except _TakenBack:
            tx.take_back(mark)
        return await self._without_repetitions(outcomes, held, tx)

    async def _without_repetitions(
        self, outcomes: Sequence[Outcome], held: Mapping[LeadId, Sequence[Identifier]], tx: Tx
    ) -> list[Outcome]:
        """Whom an earlier batch of a dry run made, this one only updates: the identifiers `held` by leads tell."""
        own_ids = sorted({identifier.own_id for identifiers in held.values() for identifier in identifiers})
        known = set(own_ids) - await queries.first_of_dry_run(tx.connection, self._job.import_id, own_ids)
        met = {lead_id for lead_id, identifiers in held.items() if _are_known(identifiers, known)}
        return [
            Outcome("updated", lead_id=each.lead_id) if each.state == "created" and each.lead_id in met else each
            for each in outcomes
        ]

    async def _keep_bad(self, batch: Sequence[_Read], outcomes: Sequence[Outcome], tx: Tx) -> None:
        bad = [
            (row.line, each.reason, row.text if row.fault else row.values)
            for (row, _), each in zip(batch, outcomes, strict=True)
            if each.state == "failed"
        ]
        label = f"{self._job.import_id}/{bad[0][0]}"
        sealed = self._runtime.keys.seal_bytes(zlib.compress(orjson.dumps(bad), 1), label)
        await tx.connection.execute(queries.ADD_BAD, self._job.import_id, bad[0][0], sealed)

    async def _end(self) -> None:
        async with self._runtime.database.transaction() as tx:
            job = self._job
            if await tx.connection.fetchval(queries.HOLD, job.import_id, self._owner, self._place.position):
                if self._read_up_to < (job.file_bytes or 0):
                    await queries.end(
                        tx.connection, job.import_id, "failed", "a part of the file is gone; send it again"
                    )
                    log.error("import_file_lost", import_id=job.import_id)
                    return
                await queries.end(tx.connection, job.import_id, "done")
                log.info("import_done", import_id=job.import_id, kind=job.kind)


def _are_known(identifiers: Sequence[Identifier], known: Collection[LeadId]) -> bool:
    """Whether any of these names somebody; a phone number does not, beside an email."""
    has_email = any(identifier.kind == "email" for identifier in identifiers)
    return any(each.own_id in known and not (has_email and each.kind == "phone") for each in identifiers)


def _counted(outcomes: Sequence[Outcome]) -> Counts:
    states = [each.state for each in outcomes]
    return Counts(states.count("created"), states.count("updated"), states.count("unchanged"), states.count("failed"))


def _smoothed(before: float | None, now: float) -> float:
    return now if before is None else 0.9 * before + 0.1 * now
