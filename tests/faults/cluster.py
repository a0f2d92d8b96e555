"""Every service in processes that can be killed, frozen and armed with failpoints, on servers that can too.

A keeper restarts what dies, as any supervisor does, unless the test holds it down.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg

from deploy.embedded.forking import TemplateProgram
from deploy.embedded.kafka import KafkaNode
from deploy.embedded.ports import free_port
from deploy.embedded.postgres import PostgresNode
from deploy.embedded.processes import Program, Running, wait_until
from deploy.embedded.processes import stop as end_process
from shared.kafka import apply_topics
from shared.settings import Settings
from shared.testing import make_settings, token
from tests.faults.prepare import prepare_database
from throughline.processes import ENTRY, MODULES

READY_WITHIN = 90.0
PARTITIONS = 4
LAST_LINES = 15
STANDS = {
    "relay": """
        SELECT log, position, (SELECT max(position) FROM {service}.event_log AS row WHERE row.log = cursor.log)
        FROM {service}.relay_cursors AS cursor""",
    "lease": "SELECT name, owner, epoch, expires_at, clock_timestamp() FROM {service}.leases",
    "marks": """
        SELECT topic, partition, "offset", event_id FROM {service}.relay_marks WHERE topic = 'touches'""",
    "consumer": """
        SELECT consumer, topic, partition, next_offset, updated_at FROM {service}.consumer_positions
        WHERE topic = 'touches'""",
    "parked": "SELECT consumer, topic, type, slug, count(*) FROM {service}.parked_events GROUP BY 1, 2, 3, 4",
}
"""What is told of each service when something was lost."""


@dataclass
class Role:
    """One process of a service."""

    service: str
    roles: tuple[str, ...]
    port: int = field(default_factory=free_port)
    management: int = field(default_factory=free_port)
    process: Running | None = None
    failpoints: str = ""
    surroundings: dict[str, str] = field(default_factory=dict)
    held_down: bool = False
    deaths: int = 0


class Cluster:
    """The system under fault."""

    def __init__(self, folder: Path, *, smtp_url: str | None = None, everything: bool = False) -> None:
        self.folder = folder
        self.smtp_url = smtp_url
        port = free_port()
        self.postgres = PostgresNode(folder / "postgres", free_port(), "faults")
        self.kafka = KafkaNode(folder / "kafka", port, free_port([port]), heap_mb=320)
        self.settings: Settings = make_settings(
            self.postgres.url, self.kafka.bootstrap_servers, prefix="faults.", topic_partitions=PARTITIONS
        )
        self._template = TemplateProgram(ENTRY, MODULES)
        self._copied: Running | None = None
        self._servers: dict[str, Running] = {}
        self._held: set[str] = set()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self.roles = {
            "capture-api": Role("capture", ("api",)),
            "capture-worker": Role("capture", ("consumer", "worker")),
            "scoring": Role("scoring", ("api", "consumer", "worker")),
            "attribution": Role("attribution", ("consumer", "worker")),
            "attribution-api": Role("attribution", ("api",)),
        }
        if everything:
            for service in ("routing", "nurture"):
                self.roles[service] = Role(service, ("api", "consumer", "worker"))

    def start(self) -> None:
        """Bring everything up. Roles are copies of a template, as in the embedded stack: imports are paid for once."""
        self._copied = self._template.start(self.folder / "template.log", os.environ)
        for server in (self.postgres, self.kafka):
            self._start_server(server)
        prepare_database(self.postgres.url)

        asyncio.run(apply_topics(self.settings))
        for name in self.roles:
            self._start_role(name)
        threading.Thread(target=self._keep, daemon=True).start()
        self.wait_ready()

    def stop(self) -> None:
        """Take everything down."""
        self._over.set()
        with self._lock:
            for role in self.roles.values():
                if role.process is not None:
                    with suppress(ProcessLookupError):
                        os.kill(role.process.pid, signal.SIGCONT)
                        os.kill(role.process.pid, signal.SIGKILL)
                    role.process.wait()
            if self._copied is not None:
                end_process(self._copied, self._template.stop_signal)
            for process in self._servers.values():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                    os.kill(process.pid, signal.SIGTERM)
            for process in self._servers.values():
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()

    def server(self, name: str) -> Program:
        """A server by its name."""
        return self.postgres if name == "postgres" else self.kafka

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process; the keeper brings it back."""
        process = self._process(name)
        os.kill(process.pid, number)
        if number in (signal.SIGKILL, signal.SIGQUIT):
            process.wait()

    @contextmanager
    def down(self, name: str, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """Keep a process down for a block."""
        with self._lock:
            self._held.add(name)
        self.kill(name, number)
        self._process(name).wait()
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Freeze a process, and those that it has started, for a block."""
        first = psutil.Process(self._process(name).pid)
        frozen = [first, *first.children(recursive=True)]
        for process in frozen:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def arm(self, name: str, failpoints: str) -> None:
        """Start a process anew, to die at a failpoint; what the keeper starts after that is not armed."""
        self.roles[name].failpoints = failpoints
        self.restart(name, self.roles[name].surroundings)

    def restart(self, name: str, surroundings: dict[str, str]) -> None:
        """Kill a process; it is started anew with these variables in its environment, now and later."""
        with self._lock:
            role = self.roles[name]
            role.surroundings = surroundings
            deaths = role.deaths
            assert role.process is not None
            with suppress(ProcessLookupError):
                os.kill(role.process.pid, signal.SIGKILL)
        assert wait_until(lambda: role.deaths > deaths, READY_WITHIN), "the process was not started anew"

    def wait_deaths(self, name: str, deaths: int) -> None:
        """Wait until a process died so often."""
        assert wait_until(lambda: self.roles[name].deaths >= deaths, READY_WITHIN), f"{name} did not die"

    def wait_ready(self) -> None:
        """Wait until every process says that it is ready."""
        for name, role in self.roles.items():
            assert wait_until(lambda role=role: is_ready(role.management), READY_WITHIN), f"{name} is not ready"  # type: ignore[misc]

    def add(self, name: str, service: str, roles: tuple[str, ...]) -> None:
        """Another replica."""
        self.start_member(name, service, roles)
        self.wait_ready()

    def start_member(self, name: str, service: str, roles: tuple[str, ...]) -> None:
        """Another replica, which is not waited for."""
        with self._lock:
            self.roles[name] = Role(service, roles)
            self._start_role(name)

    def remove(self, name: str) -> None:
        """Stop a replica for good."""
        with self._lock:
            role = self.roles.pop(name)
        assert role.process is not None
        os.kill(role.process.pid, signal.SIGTERM)
        role.process.wait(30)

    def client(self, name: str) -> httpx.Client:
        """A client of a process' API, with every right."""
        role = self.roles[name]
        return httpx.Client(
            base_url=f"http://127.0.0.1:{role.port}",
            headers={"authorization": f"Bearer {token(self.settings)}"},
            timeout=30,
        )

    def query(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """Ask the database."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), arguments)
            return cursor.fetchall() if cursor.description else []

    def stands(self) -> str:
        """How far relays and consumers have come, and what processes complained of last."""
        told = []
        for service in sorted({role.service for role in self.roles.values()}):
            for what, statement in STANDS.items():
                rows = self.query(statement.format(service=service))
                told += [f"{service} {what}: " + " ".join(map(str, row)) for row in rows]
        for name in self.roles:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
            told += [f"{name} {line[:300]}" for line in lines[-LAST_LINES:]]
        return "\n".join(told)

    @contextmanager
    def copied(self, name: str) -> Iterator[Path]:
        """Stop a server cleanly, copy its data folder, start it again; answers the copy."""
        server = self.server(name)
        copy = self.folder / f"{name}-copy"
        shutil.rmtree(copy, ignore_errors=True)
        with self.down(name, server.stop_signal):
            shutil.copytree(self._data(name), copy, symlinks=True)
            _same_owner(self._data(name), copy)
        self.wait_server(name)
        yield copy
        shutil.rmtree(copy, ignore_errors=True)

    def restore(self, name: str, copy: Path) -> None:
        """Put an earlier copy of a server's data in the place of the present one."""
        data = self._data(name)
        with self.down(name, self.server(name).stop_signal):
            shutil.rmtree(data)
            shutil.copytree(copy, data, symlinks=True)
            _same_owner(copy, data)
        self.wait_server(name)

    def wait_server(self, name: str) -> None:
        """Wait until a server answers."""

        def answers() -> bool:
            process = self._servers.get(name)
            return process is not None and process.poll() is None and self.server(name).is_ready(process.pid)

        assert wait_until(answers, READY_WITHIN), f"{name} did not come back"

    def memory(self, name: str) -> int:
        """Resident memory of a process in MiB; 0 of one that is about to be started again."""
        try:
            return int(psutil.Process(self._process(name).pid).memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            return 0

    def _data(self, name: str) -> Path:
        return self.folder / name

    def _process(self, name: str) -> Running:
        process = self._servers.get(name) or self.roles[name].process
        assert process is not None
        return process

    def _start_server(self, server: Program) -> None:
        server.prepare(os.environ)
        self._servers[server.name] = server.start(self.folder / f"{server.name}.log", os.environ)
        self.wait_server(server.name)

    def _start_role(self, name: str) -> None:
        role = self.roles[name]
        environment = environment_of(self, role.port, role.management) | {
            "THROUGHLINE_FAILPOINTS": role.failpoints,
            **role.surroundings,
        }
        role.failpoints = ""
        words = ("run", role.service, *role.roles)
        role.process = self._template.fork(name, words, self.folder / f"{name}.log", environment)

    def _keep(self) -> None:
        while not self._over.wait(0.05):
            with self._lock:
                for name, role in list(self.roles.items()):
                    if name not in self._held and role.process is not None and role.process.poll() is not None:
                        role.deaths += 1
                        self._start_role(name)
                for name, process in list(self._servers.items()):
                    if name not in self._held and process.poll() is not None:
                        server = self.server(name)
                        server.prepare(os.environ)
                        self._servers[name] = server.start(self.folder / f"{name}.log", os.environ)


def environment_of(cluster: Cluster, port: int, management: int) -> dict[str, str]:
    """The settings of a process of the cluster."""
    return {
        **os.environ,
        "THROUGHLINE_DATABASE_URL": cluster.postgres.url,
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": cluster.kafka.bootstrap_servers,
        "THROUGHLINE_TOPIC_PREFIX": cluster.settings.topic_prefix,
        "THROUGHLINE_TOPIC_PARTITIONS": str(PARTITIONS),
        "THROUGHLINE_SECRET": cluster.settings.secret.get_secret_value(),
        "THROUGHLINE_PORT": str(port),
        "THROUGHLINE_MANAGEMENT_PORT": str(management),
        **({"THROUGHLINE_SMTP_URL": cluster.smtp_url} if cluster.smtp_url else {}),
        "THROUGHLINE_LEASE_SECONDS": "2",
        "THROUGHLINE_WATERMARK_EVERY": "PT1S",
    }


def is_ready(port: int) -> bool:
    """Whether a process says that it is ready."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _same_owner(model: Path, copy: Path) -> None:
    owner = model.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
