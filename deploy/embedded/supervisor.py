"""Runs the whole stack and keeps it running: servers, schema, topics, services and the gateway before them.

What it starts carries the data folder's name in its environment. So after a kill -9 of the supervisor the next one
finds what was left, ends it and starts anew; the data is as it was, since every program here survives being killed.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import psutil

from deploy.embedded.child import Child
from deploy.embedded.errors import PortInUse, ProgramFailed
from deploy.embedded.folder import DataFolder, ProcessState, StackState
from deploy.embedded.forking import TemplateProgram, service_program
from deploy.embedded.kafka import KafkaNode, class_path, java
from deploy.embedded.ports import LOOPBACK, kept_ports
from deploy.embedded.postgres import PostgresNode, binaries
from deploy.embedded.processes import (
    MARK,
    ProcessId,
    Program,
    end,
    is_alive,
    launch,
    marked,
    stop,
)
from deploy.embedded.programs import ServiceProcess, gateway_program

DATABASE_URL = "THROUGHLINE_DATABASE_URL"
BOOTSTRAP = "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS"
SECRET = "THROUGHLINE_SECRET"
PUBLIC_URL = "THROUGHLINE_PUBLIC_URL"

STANDS_STILL = 120.0
"""Seconds in which nothing that starts becomes ready: it will not any more. A slow machine may take longer in all."""
FAILURES_AT_START = 5
SERVICES_STOP_WITHIN = 22.0  # they give themselves 20
SERVERS_STOP_WITHIN = 20.0
OTHERS_WITHIN = 90.0
"""How long somebody else may still be ending a stack on the same folder."""
LOG_KEPT = 1 << 20
LOG_LIMIT = 32 << 20
LOOK_AT_LOGS_EVERY = 30.0


@dataclass(frozen=True)
class Plan:
    """What is to run, and where."""

    folder: DataFolder
    port: int
    processes: Sequence[ServiceProcess]
    entry: str
    modules: Sequence[str]
    preparation: Sequence[str] = ("prepare",)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Stack:
    """The children of one supervisor."""

    def __init__(self, plan: Plan, listener: socket.socket, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = plan.folder
        self._tell = tell
        self._began = self._moved = time.monotonic()
        self._ready = 0
        self._publishing = Lock()
        self.url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        self._ports = kept_ports(self._folder.ports, self._port_names())
        self._secrets = self._folder.make_secrets()
        self._kafka = KafkaNode(
            self._folder.path / "kafka",
            self._ports["kafka"],
            self._ports["kafka-controller"],
        )
        self._postgres = PostgresNode(
            self._folder.path / "postgres",
            self._ports["postgres"],
            self._secrets.postgres_password,
        )
        self._settings = self._make_settings()
        self._template = TemplateProgram(plan.entry, plan.modules)
        self._servers = {program.name: self._server_child(program) for program in self._own_servers()}
        self._copied = self._server_child(self._template)
        self._services = [self._service_child(process) for process in plan.processes]
        self._gateway = self._gateway_child(listener)
        self.children = [
            *self._servers.values(),
            *self._services,
            self._gateway,
            self._copied,
        ]

    def start(self, stopping: Callable[[], bool]) -> None:
        """Start everything and return when all of it is ready. Raises `ProgramFailed`.

        The servers come up while the template imports; the services start when they find what they need.
        """
        self._folder.write_settings(self._settings)
        for child in (*self._servers.values(), self._copied, self._gateway):
            child.start()
        self._await(self._copied, stopping)
        self._prepare(stopping)
        for child in self._services:
            child.start()
        for child in self.children:
            self._await(child, stopping)

    def stop(self) -> None:
        """Services first, so that they can still finish what they do; then the gateway, Kafka, PostgreSQL."""
        self._template.refuse()
        self._stop(self._services, SERVICES_STOP_WITHIN)
        self._stop([self._gateway, self._copied], SERVERS_STOP_WITHIN)
        for name in ("kafka", "postgres"):
            self._stop(
                [self._servers[name]] if name in self._servers else [],
                SERVERS_STOP_WITHIN,
            )

    def trim_logs(self) -> None:
        """Keep the logs of a long run small; their writers append, so a log can be emptied under them."""
        for log in self._folder.logs.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                with suppress(OSError):  # on a full disk there is no place to keep it, and room to be made
                    shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)

    def _stop(self, children: Sequence[Child], within: float) -> None:
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + within
        for child in children:
            if not child.has_stopped(max(deadline - time.monotonic(), 0.1)):
                self._tell(f"{child.program.name} did not stop by itself and was killed")

    def _await(self, child: Child, stopping: Callable[[], bool]) -> None:
        while not child.was_ready.wait(0.1):
            if stopping():
                raise ProgramFailed("Stopped while starting.")
            if self._failed(child):
                raise ProgramFailed(f"{child.failure}; its log is {child.log}{_last_line(child.log)}")
            if self._stands_still():
                still = f"for {STANDS_STILL:.0f} s nothing has become ready"
                raise ProgramFailed(f"{child.program.name} is not ready, and {still}: see {child.log}.")

    def _stands_still(self) -> bool:
        ready = sum(child.was_ready.is_set() for child in self.children)
        if ready > self._ready:
            self._ready, self._moved = ready, time.monotonic()
        return time.monotonic() > self._moved + STANDS_STILL

    def _failed(self, child: Child) -> bool:
        """Whether a child that was never ready is not worth waiting for."""
        if child.was_ready.is_set():
            return False
        return child.shown.restarts >= FAILURES_AT_START or child.refuses

    def _prepare(self, stopping: Callable[[], bool]) -> None:
        """Schema and topics, made by a command that waits for the servers; the services wait for what it makes."""
        log = self._folder.logs / "prepare.log"
        environment = self._environment(self._settings)
        process = self._template.fork("prepare", self._plan.preparation, log, environment)
        while process.poll() is None:
            if stopping() or any(self._failed(child) for child in self._servers.values()):
                stop(process, signal.SIGTERM, within=5)
            time.sleep(0.05)
        for child in self._servers.values():
            self._await(child, stopping)
        if process.poll() != 0:
            raise ProgramFailed(f"The schema and the topics were not made; the log is {log}{_last_line(log)}")
        self._moved = time.monotonic()

    def _port_names(self) -> Iterator[str]:
        yield from ("postgres", "kafka", "kafka-controller")
        for process in self._plan.processes:
            yield from (process.name, f"{process.name}-management")

    def _make_settings(self) -> dict[str, str]:
        """The environment of our own processes: what the caller gave stands, the rest points at this stack."""
        given = {key: value for key, value in self._plan.environment.items() if key.startswith("THROUGHLINE_")}
        ours = {
            DATABASE_URL: self._postgres.url,
            BOOTSTRAP: self._kafka.bootstrap_servers,
            SECRET: self._secrets.secret,
            PUBLIC_URL: self.url,
        }
        return {**ours, **given, "THROUGHLINE_DATA_DIR": str(self._folder.path)}

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        plain = {key: value for key, value in self._plan.environment.items() if not key.startswith("THROUGHLINE_")}
        return {
            **keeping_compiled_code(plain),
            **settings,
            MARK: str(self._folder.path),
        }

    def _own_servers(self) -> Iterator[Program]:
        if DATABASE_URL not in self._plan.environment:
            yield self._postgres
        if BOOTSTRAP not in self._plan.environment:
            yield self._kafka

    def _server_child(self, program: Program) -> Child:
        return self._child(
            program,
            ProcessState(
                program.name,
                None,
                [],
                None,
                "starting",
                0,
                self._ports.get(program.name),
                None,
            ),
            {},
        )

    def _service_child(self, process: ServiceProcess) -> Child:
        port = self._ports[process.name] if "api" in process.roles else None
        management = self._ports[f"{process.name}-management"]
        shown = ProcessState(
            process.name,
            process.service,
            list(process.roles),
            None,
            "starting",
            0,
            port,
            management,
        )
        return self._child(
            service_program(process, port, management, self._template),
            shown,
            self._settings,
        )

    def _gateway_child(self, listener: socket.socket) -> Child:
        routes = {
            process.service: self._ports[process.name] for process in self._plan.processes if "api" in process.roles
        }
        port = listener.getsockname()[1]
        shown = ProcessState("gateway", None, [], None, "starting", 0, port, None)
        return self._child(gateway_program(listener, routes), shown, {})

    def _child(self, program: Program, shown: ProcessState, settings: Mapping[str, str]) -> Child:
        log = self._folder.logs / f"{program.name}.log"
        if log.exists() and log.stat().st_size > LOG_KEPT:
            log.replace(log.with_suffix(".log.1"))
        return Child(program, shown, log, self._environment(settings), self._changed)

    def _changed(self, shown: ProcessState) -> None:
        if shown.state == "ready":
            again = f" again (restart {shown.restarts})" if shown.restarts else ""
            self._tell(f"{shown.name} is ready{again} after {time.monotonic() - self._began:.1f} s")
        with self._publishing:
            self._folder.write_state(StackState(self.url, [child.shown for child in self.children]))


class StopRequest:
    """SIGTERM and SIGINT, as something that can be waited for and asked about."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)

    def asked(self) -> bool:
        """Whether it came."""
        return self._asked

    def wait(self, timeout: float) -> bool:
        """Whether it came within `timeout` seconds."""
        select.select([self._reading], [], [], timeout)
        return self._asked

    def _take(self, number: int, frame: object) -> None:
        self._asked = True
        os.write(self._writing, b".")


def supervise(plan: Plan, *, ready: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Run the stack until SIGTERM or Ctrl-C. `ready` gets the base URL. Raises `CannotStart`."""
    request = StopRequest()
    with plan.folder.held(supervising=True, within=OTHERS_WITHIN, give_up=request.asked):
        end_leftovers(plan.folder)
        with _listening(plan.port) as listener:
            _check_requirements(plan)
            stack = Stack(plan, listener, tell)
            try:
                stack.start(request.asked)
                ready(stack.url)
                while not request.wait(LOOK_AT_LOGS_EVERY):
                    stack.trim_logs()
            except ProgramFailed:
                if not request.asked():
                    raise
            finally:
                plan.folder.step_down()
                stack.stop()
                plan.folder.forget_run()


def end_leftovers(folder: DataFolder) -> bool:
    """End what a killed supervisor left behind on this folder. Whether there was anything.

    Our own processes are killed, since they survive that by design; the servers are asked first, which spares the next
    start their recovery.
    """
    state = folder.read_state()
    known = {process.name: process for process in (state.processes if state else [])}
    servers = {name: found for name in ("kafka", "postgres") if name in known and (found := _living(known[name]))}
    of_servers = {process.pid for process in servers.values()}
    ours = {process.pid: process for process in marked(folder.path) if process.pid not in of_servers}
    ours |= {found.pid: found for name, process in known.items() if name not in servers and (found := _living(process))}
    end(list(ours.values()), signal.SIGKILL, within=5)
    for name, process in servers.items():
        end([process], signal.SIGTERM if name == "kafka" else signal.SIGINT, within=15)
    folder.forget_run()
    return bool(ours or servers)


def _living(process: ProcessState) -> psutil.Process | None:
    if process.pid is None or process.created is None or not is_alive(ProcessId(process.pid, process.created)):
        return None
    with suppress(psutil.Error):
        return psutil.Process(process.pid)
    return None


def _check_requirements(plan: Plan) -> None:
    """Find out what is missing before anything is started."""
    if DATABASE_URL not in plan.environment:
        binaries()
    if BOOTSTRAP not in plan.environment:
        java()
        class_path()


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """The stack's public socket. It is ours, not the gateway's, so that it outlives a gateway that is killed."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            raise PortInUse(f"Port {port} is in use: stop what listens there, or choose another with --port.") from None
        listener.listen(1024)
        yield listener


def _last_line(log: Path) -> str:
    """The end of a log, for a sentence."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            return f" and ends with: {lines[-1][:300]}"
    return ""


def run_again(words: Sequence[str], log: Path, descriptor: int) -> subprocess.Popen[bytes]:
    """Start this program once more, apart from the terminal; it reports on the descriptor."""
    environment = keeping_compiled_code(os.environ)
    return launch(
        [sys.executable, "-m", *words],
        log=log,
        environment=environment,
        pass_fds=(descriptor,),
    )


def keeping_compiled_code(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python keeps what it compiled: eight processes that compile everything anew are slow."""
    return {**environment, "PYTHONDONTWRITEBYTECODE": "", "PYTHONUNBUFFERED": "1"}
