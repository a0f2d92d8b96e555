"""One process with some roles of a service: builds, starts, watches, and stops within 20 seconds."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import Any

import uvicorn
import uvloop

from shared.db import API_LOG, CONSUMER_LOG, TRANSIENT, Bell, hear_time, migrated
from shared.errors import Unavailable
from shared.faults import arm
from shared.kafka import Consumer
from shared.outbox import Lease, Relay, while_held
from shared.service._consuming import Consuming
from shared.service._protocol import BoundedProtocol
from shared.service._runtime import Role, Runtime, ServiceCode, Timer, build_runtime
from shared.service._upkeep import WrongSecret, check_secret, upkeep
from shared.settings import Settings
from shared.telemetry import configure_logs, counter, describe, gauge, histogram, log, start_telemetry
from shared.web import Check, ManagementApp, create_app, edged

TIMER_ERRORS = counter("throughline_timer_errors_total", "Runs of a timer that failed", ["timer"])
LOOP_LAG = histogram("throughline_event_loop_lag_seconds", "How late the event loop gets to a due task")
STARTED = gauge("throughline_started", "1 once every role of this process runs", ["service"])
GRACE_S = 20.0
TIMERS_PATIENCE_S = 12.0
TIME_EVERY_S = 10.0
LASTING = ("relay", "timers", "loop-lag", "time", "revocations")
EXIT_FAILED = 1
EXIT_CONFIG = 78


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handling: the process has other things to stop too."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, host: str, port: int) -> _Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=15,
        backlog=2048,
    )
    return _Server(config)


class Process:
    """The roles of one process."""

    def __init__(self, code: ServiceCode, roles: Sequence[Role], settings: Settings) -> None:
        self._code = code
        self._roles = roles
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._runtimes: list[Runtime] = []
        self._checks: dict[str, Check] = {}
        self._servers: list[_Server] = []
        self._consuming: Consuming | None = None
        self._stop = asyncio.Event()
        self._timers_end = asyncio.Event()
        self._bell = Bell()

    async def run(self) -> int:
        """Run until told to stop. Answers the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        management = ManagementApp(self._checks)
        self._start("management", self._serve(management, self._settings.management_port))
        self._checks["started"] = self._not_started
        starting = asyncio.create_task(self._start_roles())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                del self._checks["started"]
                STARTED.labels(self._code.name).set(1)
                log.info("started", roles=list(self._roles), port=self._settings.port)
                gc.collect()
                gc.freeze()
            code = await self._until_over(stopped)
        except WrongSecret as exc:
            log.critical("wrong_secret", detail=str(exc))
            code = EXIT_CONFIG
        finally:
            starting.cancel()
            management.draining = True
            await self._shut_down()
        return code

    async def _until_over(self, stopped: "asyncio.Task[bool]") -> int:
        await asyncio.wait([*self._tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            return 0
        for task in self._tasks:
            if task.done():
                error = task.exception() if not task.cancelled() else None
                log.critical("role_died", role=task.get_name(), fault=describe(error) if error else None)
        return EXIT_FAILED

    async def _not_started(self) -> str | None:
        return "still starting"

    def _start(self, name: str, duty: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(duty, name=name))

    async def _start_roles(self) -> None:
        gc.set_threshold(50_000, 20, 50)
        await self._await_database()
        self._start("loop-lag", self._measure_loop())
        for role in self._roles:
            log_number = API_LOG if role == "api" else CONSUMER_LOG
            runtime = build_runtime(self._code.name, self._settings, log=log_number, bell=self._bell)
            self._runtimes.append(runtime)
            match role:
                case "api":
                    await self._start_api(runtime)
                case "consumer":
                    self._start_consumer(runtime)
                case "worker":
                    self._start_worker(runtime)
        self._start("time", _hear_time(self._runtimes[0]))

    async def _start_api(self, runtime: Runtime) -> None:
        app = create_app(self._code.name, self._settings, runtime.secrets, self._code.routers(runtime))
        revocations = app.state.authenticator.revocations
        await revocations.know(runtime.database)
        self._start("revocations", revocations.follow(runtime.database))
        self._start("event-log", runtime.log.run())
        self._start("api", self._serve(edged(app, self._settings), self._settings.port))
        self._checks["postgres"] = lambda: _database_fault(runtime)

        async def queue_fault() -> str | None:
            return "the queue is nearly full" if runtime.log.load > 0.8 else None

        self._checks["queue"] = queue_fault

    def _start_consumer(self, runtime: Runtime) -> None:
        consuming = Consuming(self._code, runtime)
        self._consuming = consuming
        self._start("consumer", consuming.run())
        if consuming.keys_consumer is not None:
            self._start("keys", _supervised(consuming.keys_consumer))
        self._checks["consumer"] = consuming.fault

    def _start_worker(self, runtime: Runtime) -> None:
        relay = Relay(self._settings, runtime.database, runtime.clock, self._code.name)
        self._start("relay", relay.run())
        lease = Lease(runtime.database, "timers", self._settings.lease_seconds)
        timers = (upkeep(runtime), *self._code.timers(runtime))

        async def all_timers() -> None:
            async with asyncio.TaskGroup() as group:
                for timer in timers:
                    group.create_task(run_timer(timer, self._timers_end), name=timer.name)

        self._start("timers", while_held(lease, all_timers, self._timers_end))

    async def _serve(self, app: Any, port: int) -> None:
        server = _server(app, self._settings.host, port)
        self._servers.append(server)
        try:
            await server.serve()
        except SystemExit:
            raise RuntimeError(f"port {port} cannot be listened on; is it in use?") from None

    async def _await_database(self) -> None:
        """Wait, however long it takes, until PostgreSQL answers and is migrated."""
        url = self._settings.database_url.get_secret_value()
        said = False
        while True:
            try:
                if await asyncio.to_thread(migrated, self._code.name, url):
                    await self._check_secret()
                    return
                reason = "not migrated yet"
            except WrongSecret:
                raise
            except Exception as exc:  # noqa: BLE001  # the driver's own classes differ by how it fails
                reason = type(exc).__name__
            if not said:
                log.warning("waiting_for_database", reason=reason)
                said = True
            await asyncio.sleep(0.5)

    async def _check_secret(self) -> None:
        runtime = build_runtime(self._code.name, self._settings)
        try:
            async with runtime.database.reading() as connection:
                await check_secret(connection, runtime.ids)
        finally:
            await runtime.database.close()

    async def _measure_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.5
            await asyncio.sleep(0.5)
            LOOP_LAG.observe(max(loop.time() - due, 0.0))

    async def _shut_down(self) -> None:
        """Stop taking, finish what is under way, leave the group, close; whatever is left after 20 s is dropped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                for server in self._servers:
                    server.should_exit = True
                for runtime in self._runtimes:
                    await runtime.log.stop()
                if self._consuming is not None:
                    await self._consuming.stop()
                self._timers_end.set()
                timers = [task for task in self._tasks if task.get_name() == "timers"]
                if timers:  # a message that is being sent is sent, and its outcome known
                    await asyncio.wait(timers, timeout=TIMERS_PATIENCE_S)
                lasting = [task for task in self._tasks if task.get_name() in LASTING]
                for task in lasting:
                    task.cancel()
                await asyncio.wait(self._tasks, timeout=GRACE_S - TIMERS_PATIENCE_S - 2)
                for runtime in self._runtimes:
                    await runtime.database.close()
        for task in self._tasks:
            task.cancel()
        log.info("stopped")


async def run_timer(timer: Timer, end: asyncio.Event) -> None:
    """Run a timer until the end, and what is under way then to its own end.

    A failure is logged, counted and tried again later and later.
    """
    failures = 0
    while not end.is_set():
        wait = timer.every
        try:
            shorter = await timer.run()
            wait = min(wait, shorter) if shorter is not None else wait
            failures = 0
        except (Unavailable, *TRANSIENT) as exc:
            failures += 1
            wait = min(wait, timedelta(seconds=min(0.1 * 2**failures, 5)))
            if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th: all timers wait while PostgreSQL is away
                log.warning("timer_waits", timer=timer.name, error=type(exc).__name__, times=failures)
        except Exception as exc:  # noqa: BLE001  # a timer that fails must not end the others
            failures += 1
            wait = max(wait, timedelta(seconds=min(0.5 * 2**failures, 30)))
            TIMER_ERRORS.labels(timer.name).inc()
            log.error("timer_failed", timer=timer.name, fault=describe(exc))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait.total_seconds()):
                await end.wait()


async def _supervised(consumer: Consumer) -> None:
    await consumer.run()


async def _hear_time(runtime: Runtime) -> None:
    """Go by the database's clock, also after a time in which this machine stood still."""
    while True:
        await asyncio.sleep(TIME_EVERY_S)
        with suppress(Unavailable):
            async with runtime.database.reading() as connection:
                await hear_time(connection)


async def _database_fault(runtime: Runtime) -> str | None:
    try:
        async with asyncio.timeout(3), runtime.database.reading() as connection:
            await connection.fetchval("SELECT 1")
    except (Unavailable, TimeoutError) as exc:
        return f"no answer: {type(exc).__name__}"
    return None


def run(code: ServiceCode, roles: Sequence[Role], settings: Settings) -> int:
    """Run one process with these roles until it is told to stop. Answers the exit code."""
    configure_logs(code.name, settings.log_level)
    start_telemetry(code.name, settings.otlp_endpoint)
    arm(settings.failpoints)
    return uvloop.run(Process(code, roles, settings).run())


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def running(*duties: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run duties beside a block, and end them with it."""
    tasks = [asyncio.create_task(duty) for duty in duties]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
