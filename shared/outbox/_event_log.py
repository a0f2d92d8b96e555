"""The lane in: facts that need no decision, gathered from concurrent requests into one commit.

While one commit is under way the next requests gather; so the wait is the commit's own time, and under load a commit
takes many. A bad submission fails alone. The queue is bounded: beyond it requests are refused before memory grows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.db import CONSUMER_LOG, TRANSIENT, Connection, Database, append_rows, log_row
from shared.errors import Unavailable
from shared.events import PersonKeyCreated
from shared.faults import failpoint
from shared.ids import LeadId
from shared.personal import Draft, Encoded, PersonKeys
from shared.telemetry import counter, current_trace, histogram, log, set_trace

COMMIT_SECONDS = histogram("throughline_capture_commit_seconds", "Time of a group commit, the user's wait")
COMMIT_ROWS = histogram(
    "throughline_capture_commit_rows", "Facts in a group commit", buckets=(1, 4, 16, 64, 256, 1024, 4096)
)
SHED = counter("throughline_capture_shed_total", "Requests refused because the queue was full")
COMMIT_LIMIT = 4_096
COMMIT_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Submission:
    drafts: Sequence[Draft | Encoded]
    log: int
    trace: str | None
    done: asyncio.Future[None]


class EventLog:
    """Appends facts to a service's event log, many requests to a commit. `run` must be running."""

    def __init__(self, database: Database, keys: PersonKeys, *, queue_rows: int) -> None:
        self._database = database
        self._keys = keys
        self._queue: deque[_Submission] = deque()
        self._queued_rows = 0
        self._queue_rows = queue_rows
        self._filled = asyncio.Event()
        self._closing = False

    @property
    def load(self) -> float:
        """How full the queue is, 0 to 1."""
        return self._queued_rows / self._queue_rows

    async def append(self, drafts: Sequence[Draft | Encoded], *, apart: bool = False) -> None:
        """Return when the facts are committed. Raises Unavailable when they are not, or not known to be.

        Those that stand `apart` are in no order with others: they go to the log of consumers, so that they leave
        without the many that nobody waits for.
        """
        if not drafts:
            return
        if self._closing or self._queued_rows + len(drafts) > self._queue_rows:
            SHED.inc()
            raise Unavailable("capture is taking all it can; try again")
        which = CONSUMER_LOG if apart else self._database.log
        submission = _Submission(drafts, which, current_trace(), asyncio.get_running_loop().create_future())
        self._queue.append(submission)
        self._queued_rows += len(drafts)
        self._filled.set()
        await submission.done

    async def run(self) -> None:
        """Commit what gathers until told to stop, and then the rest."""
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        batch: list[_Submission] = []
        try:
            while not (self._closing and not self._queue):
                await self._filled.wait()
                self._filled.clear()
                while self._queue:
                    batch = self._take()
                    try:
                        if connection is None or connection.is_closed():
                            connection = await self._database.connect(command_timeout_s=COMMIT_TIMEOUT_S)
                        await self._commit(connection, batch)
                    except TRANSIENT as exc:
                        _fail(batch, Unavailable(f"the database did not take it: {type(exc).__name__}"))
                        log.warning("capture_commit_failed", error=type(exc).__name__)
                        if connection is not None:
                            connection.terminate()
                            connection = None
                    except Exception:  # noqa: BLE001  # whatever it is, only the one that caused it is to bear it
                        await self._commit_singly(batch)
        finally:
            _fail([*batch, *self._queue], Unavailable("capture is stopping"))
            if connection is not None:
                with suppress(*TRANSIENT):
                    await connection.close(timeout=2)

    async def stop(self) -> None:
        """Take no more; `run` ends when what was taken is committed."""
        self._closing = True
        self._filled.set()

    def _take(self) -> list[_Submission]:
        """The next that go to one log."""
        batch: list[_Submission] = []
        rows = 0
        while self._queue:
            head = self._queue[0]
            if batch and (head.log != batch[0].log or rows + len(head.drafts) > COMMIT_LIMIT):
                break
            rows += len(head.drafts)
            batch.append(self._queue.popleft())
        self._queued_rows -= rows
        return batch

    async def _commit(self, connection: asyncpg.Connection[asyncpg.Record], batch: Sequence[_Submission]) -> None:
        drafts = [draft for submission in batch for draft in submission.drafts]
        with COMMIT_SECONDS.time():
            personal = [draft for draft in drafts if draft.personal is not None]
            lead_ids = list({draft.lead_id for draft in personal})
            if self._keys.lacks(lead_ids):
                async with connection.transaction():
                    ciphers, created = await self._keys.ciphers(connection, lead_ids, personal[0].received_at)
                    await self._append(connection, batch, ciphers, created)
                self._keys.remember(ciphers)
            else:
                ciphers, _ = await self._keys.ciphers(connection, lead_ids, drafts[0].received_at)
                await self._append(connection, batch, ciphers, [])
        failpoint("after_commit_before_ack")
        COMMIT_ROWS.observe(len(drafts))
        _succeed(batch)
        await self._database.wake_relay(connection, batch[0].log, calm=all(draft.calm for draft in drafts))

    async def _append(
        self,
        connection: Connection,
        batch: Sequence[_Submission],
        ciphers: dict[LeadId, AESGCM],
        created: Sequence[PersonKeyCreated],
    ) -> None:
        rows = [log_row(event, None) for event in created]
        for submission in batch:
            rows.extend(self._keys.rows(submission.drafts, ciphers, submission.trace))
        await append_rows(connection, self._database.namespace, batch[0].log, rows)

    async def _commit_singly(self, batch: Sequence[_Submission]) -> None:
        """A row that PostgreSQL refuses fails alone."""
        for submission in batch:
            if submission.done.done():
                continue
            set_trace(submission.trace)
            try:
                async with self._database.transaction() as tx:
                    await self._keys.emit_drafts(tx, submission.drafts)
            except Unavailable as exc:
                _fail(batch, exc)  # the rest too: to try each would take each one's time-out
                return
            except Exception as exc:  # noqa: BLE001  # raised to who submitted it
                log.warning("capture_fact_refused", error=type(exc).__name__)
                _fail([submission], exc)
            else:
                _succeed([submission])


def _succeed(batch: Iterable[_Submission]) -> None:
    """Tell those who still wait; a client that went away has cancelled."""
    for submission in batch:
        if not submission.done.done():
            submission.done.set_result(None)


def _fail(batch: Iterable[_Submission], error: Exception) -> None:
    for submission in batch:
        if not submission.done.done():
            submission.done.set_exception(error)
