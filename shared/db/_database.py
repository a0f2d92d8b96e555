"""Connections and transactions. Whoever opens a transaction commits it; the answer leaves after the commit."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
import orjson

from shared.clock import present
from shared.db._bell import API_LOG, Bell, notice_of
from shared.db._types import TypedConnection
from shared.errors import Unavailable
from shared.events import EVENT_OF, TOPIC_OF, Event
from shared.ids import EventId, LeadId
from shared.telemetry import current_trace, log

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection: TypeAlias = asyncpg.Connection

PutOff: TypeAlias = Callable[[set[LeadId]], Awaitable[None]]
TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a statement meets that crosses the server's farewell
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.ReadOnlySQLTransactionError,
    ConnectionError,
    TimeoutError,
    OSError,
)
COMMAND_TIMEOUT_S = 60.0
PLAN_ONCE = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
NOW = "SELECT clock_timestamp() AS now"
HAVE_PATIENCE = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
FROZEN_S = 5.0
END_FROZEN = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = $1 AND pid <> pg_backend_pid()
  AND state = 'active' AND wait_event = 'ClientRead' AND query_start < clock_timestamp() - make_interval(secs => $2)
"""
COPIED_FROM = 50
"""How many new rows go by COPY: a statement has the shorter way, and costs more for each row."""
_JSONB_VERSION = b"\x01"
APPEND = "SELECT append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"


class LogRow(tuple[str, str, str, str, str, str, str | None, bytes | None]):
    """A row of the event log: event id, topic, key, type, subject, time, traceparent, value (None: a tombstone)."""

    __slots__ = ()


def log_row(event: Event, trace: str | None, personal: bytes | None = None) -> LogRow:
    """The event as it stands in the log; `personal` is its encrypted block, if it is not in there yet."""
    kind = type(event)
    value = event.encode()
    return LogRow(
        (
            event.event_id,
            TOPIC_OF[kind],
            event.key,
            kind.ce_type,
            event.subject,
            event.occurred_at.isoformat(),
            trace,
            value if personal is None else b'%s,"personal":"%s"}' % (value[:-1], personal),
        )
    )


class Tx:
    """One open transaction: its connection, and the facts that will be appended as its last act."""

    def __init__(self, connection: Connection, *, muted: bool = False) -> None:
        self.connection = connection
        self.muted = muted
        """Whether it is a rebuild's: it tells nothing, and nobody reads what it makes before its end."""
        self._rows: list[LogRow] = []
        self._traces: Callable[[], dict[str, str | None]] | dict[str, str | None] = {}
        self._cause: Event | None = None
        self.memory: dict[str, dict[Any, Any]] = {}
        """What was looked up in this transaction and holds until its end; gone with what is taken back."""
        self._put_off: dict[str, tuple[PutOff, set[LeadId]]] = {}

    def emit(self, *events: Event) -> None:
        """Tell facts: they are appended to the event log in the same commit. A rebuild tells nothing."""
        if not self.muted:
            self._rows.extend(log_row(event, self.trace_of(event.lead_id)) for event in events)

    def emit_row(self, row: LogRow) -> None:
        """Tell a fact that is encoded already."""
        if not self.muted:
            self._rows.append(row)

    def put_off(self, name: str, work: PutOff, lead_ids: Iterable[LeadId]) -> None:
        """Do work about leads after the other handlers, once for all of them, however often it is put off.

        For what comes out the same whenever and however often it is done. Of the same name, the first is done.
        """
        _, known = self._put_off.setdefault(name, (work, set()))
        known.update(lead_ids)

    async def make_up(self) -> None:
        """Do what was put off."""
        while self._put_off:
            work, lead_ids = self._put_off.pop(next(iter(self._put_off)))
            await work(lead_ids)

    def trace_causes(self, traces: Callable[[], dict[str, str | None]]) -> None:
        """Facts told from here on belong to the trace of their cause; looked up only if any is told.

        `traces` answers by the cause's event id, and by its lead for handlers that take many facts at once.
        """
        self._traces = traces
        self._cause = None

    def caused_by(self, cause: Event | None) -> None:
        """What is told from here on follows from this fact; None: from the one of the same lead."""
        self._cause = cause

    def trace_of(self, lead_id: LeadId) -> str | None:
        """The trace that what is told about a lead belongs to."""
        if callable(self._traces):
            self._traces = self._traces()
        if not self._traces:
            return current_trace()
        return self._traces.get(self._cause.event_id if self._cause else lead_id, current_trace())

    def emit_tombstone(self, event_id: EventId, topic: str, key: str, ce_type: str, at: str) -> None:
        """Tell a compacted topic to forget a key."""
        if not self.muted:
            self._rows.append(LogRow((event_id, topic, key, ce_type, key, at, current_trace(), None)))

    def mark(self) -> int:
        """How much has been told so far, to be able to take back what comes after."""
        return len(self._rows)

    def take_back(self, mark: int) -> None:
        """Untell what was told since the mark: its savepoint was rolled back."""
        del self._rows[mark:]
        self.memory.clear()
        self._put_off.clear()

    @property
    def rows(self) -> Sequence[LogRow]:
        """What will be appended."""
        return self._rows

    @property
    def is_calm(self) -> bool:
        """Whether nobody waits for what was told."""
        return all(EVENT_OF[kind].calm for kind in {row[3] for row in self._rows})


async def append_rows(connection: Connection, namespace: int, log: int, rows: Sequence[LogRow]) -> None:
    """Append rows to a log; must be the transaction's last statement, since it takes the log's lock."""
    event_ids, topics, keys, types, subjects, times, traces, values = zip(*rows, strict=True)
    pairs = list(zip(topics, types, strict=True))
    places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs), 1)}
    await connection.execute(
        APPEND,
        namespace,
        log,
        [topic for topic, _ in places],
        [kind for _, kind in places],
        [places[pair] for pair in pairs],
        event_ids,
        keys,
        None if subjects == keys else subjects,
        times,
        traces if any(traces) else None,
        values,
    )


async def have_patience(connection: Connection) -> None:
    """Let a transaction that only reads stand still for a minute: what it has read is being gone through."""
    await connection.execute(HAVE_PATIENCE)


async def hear_time(connection: Connection) -> None:
    """Set this process' clock by the server's."""
    asked = time.monotonic()
    present.hear(await connection.fetchval(NOW), asked)


async def _prepare(connection: Connection) -> None:
    await hear_time(connection)
    await connection.set_type_codec(
        "json",
        encoder=lambda value: orjson.dumps(value, default=str),
        decoder=orjson.loads,
        schema="pg_catalog",
        format="binary",  # the same bytes as text, and COPY takes it
    )
    await connection.set_type_codec(
        "jsonb",
        encoder=lambda value: _JSONB_VERSION + orjson.dumps(value, default=str),
        decoder=lambda value: orjson.loads(value[1:]),
        schema="pg_catalog",
        format="binary",
    )


async def _leave(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """What a connection goes back to the pool with: nothing set on one outlives its transaction."""


class Database:
    """One service's part of PostgreSQL. `log` says which of its two event logs its transactions append to."""

    def __init__(  # noqa: PLR0913  # the knobs of one pool
        self,
        url: str,
        service: str,
        *,
        log: int = API_LOG,
        pool_size: int = 8,
        projection: str = "projection",
        idle_timeout_s: float = 5.0,
        muted: bool = False,
        statement_timeout_s: float = 30.0,
        bell: Bell | None = None,
    ) -> None:
        self.service = service
        self.url = url
        self.log = log
        self.muted = muted
        self.bell = bell or Bell()
        self.namespace = zlib.crc32(f"{service}.event_log".encode()) - 2**31
        self.channel = f"{service}_event_log"
        self._pool_size = pool_size
        self._server_settings = {
            "search_path": f"{service}_{projection},{service}",
            "application_name": f"throughline-{service}",
            "idle_in_transaction_session_timeout": str(int(idle_timeout_s * 1000)),
            "statement_timeout": str(int(statement_timeout_s * 1000)),
            "lock_timeout": "10000",
            "timezone": "UTC",
            "jit": "off",
        }
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> asyncpg.Pool[asyncpg.Record]:
        """The pool, opened at its first use, so that a process can start while PostgreSQL is away."""
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self.url,
                        connection_class=TypedConnection,
                        min_size=1,
                        max_size=self._pool_size,
                        init=_prepare,
                        reset=_leave,  # asyncpg's own costs four statements a use
                        server_settings=self._server_settings,
                        timeout=5,
                        command_timeout=COMMAND_TIMEOUT_S,
                        max_inactive_connection_lifetime=300,
                    )
        return self._pool

    async def connect(
        self, *, command_timeout_s: float = COMMAND_TIMEOUT_S, plan_once: bool = False
    ) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of one's own, outside the pool: for listening, and for one writer that keeps it.

        A statement that is not answered within `command_timeout_s` fails: the server may be gone without a word. With
        `plan_once` its plan depends neither on arguments nor on how small a table was: for a writer whose statements
        all look up keys, since planning an array anew each time costs more than what is then carried out.
        """
        settings = self._server_settings | (PLAN_ONCE if plan_once else {})
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self.url,
            connection_class=TypedConnection,
            server_settings=settings,
            timeout=5,
            command_timeout=command_timeout_s,
        )
        try:
            await _prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def close(self) -> None:
        """Close the pool, by force if it does not close in time."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(5):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection for statements that commit on their own. Raises Unavailable when PostgreSQL is away."""
        try:
            pool = await self.open()
            async with pool.acquire(timeout=5) as connection:
                yield connection
        except TRANSIENT as exc:
            raise Unavailable(f"the database did not answer: {type(exc).__name__}") from exc

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """A transaction that commits, with the facts it told, on leaving. Raises Unavailable when it cannot."""
        try:
            pool = await self.open()
            async with pool.acquire(timeout=5) as connection:
                async with connection.transaction():
                    tx = Tx(connection, muted=self.muted)
                    yield tx
                    await tx.make_up()
                    if tx.rows:
                        await append_rows(connection, self.namespace, self.log, tx.rows)
                if tx.rows:
                    await self.wake_relay(connection, self.log, calm=tx.is_calm)
        except TRANSIENT as exc:
            raise Unavailable(f"the database did not take it: {type(exc).__name__}") from exc

    async def end_frozen(self) -> None:
        """End connections of this service's processes that stand still in the middle of a COPY, and what they lock.

        PostgreSQL's own time limits do not count there: a process that was frozen would keep its partitions for good.
        """
        with suppress(Unavailable):
            async with self.reading() as connection:
                ended = await connection.fetch(END_FROZEN, f"throughline-{self.service}", FROZEN_S)
            if ended:
                log.warning("frozen_connections_ended", number=len(ended))

    async def wake_relay(self, connection: Connection, which: int, *, calm: bool) -> None:
        """Tell the relay that there is something to read in a log, after the commit: NOTIFY locks all databases.

        What is committed stays so if this fails, and the relay looks for itself a moment later.
        """
        if self.bell.is_heard:
            self.bell.ring(which, calm=calm)
            return
        with suppress(*TRANSIENT):
            await connection.execute("SELECT pg_notify($1, $2)", self.channel, notice_of(which, calm=calm))


async def one(connection: Connection, statement: str, *arguments: Any) -> asyncpg.Record:
    """The single row that a statement answers with."""
    row = await connection.fetchrow(statement, *arguments)
    if row is None:
        raise LookupError(f"no row: {statement[:80]}")
    return row
