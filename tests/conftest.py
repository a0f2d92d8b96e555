"""Real servers for the tests: given ones, else containers, else the embedded ones; the run says which.

What servers need is imported where they are started: most tests, and each process that runs them, do without.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

if TYPE_CHECKING:
    from shared.settings import Settings

GIVEN_DATABASE = "TEST_DATABASE_URL"
GIVEN_KAFKA = "TEST_KAFKA_BOOTSTRAP"
CONTAINERS = "TEST_CONTAINERS"  # 0: not even where Docker answers
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a fast place for databases that live as long as a test
ROOM = 2 << 30
hypothesis_settings.register_profile("histories", max_examples=600, deadline=None)  # make histories
_used: dict[str, str] = {}
os.environ.setdefault("THROUGHLINE_NURTURE_RENDERER_PATIENCE", "PT10M")  # however busy the machine is
gc.disable()  # until all is collected: nothing of it can be freed


@cache
def containers_can_be_had() -> bool:
    """Whether Docker answers and has the images, or can get them; else the embedded servers are used."""
    if os.environ.get(CONTAINERS) == "0":
        return False
    from shared.testing.containers import available

    return available()


@dataclass(frozen=True)
class DatabaseServer:
    """A PostgreSQL server on which databases can be made."""

    url: str

    def make(self, name: str, template: str | None = None) -> str:
        """A new database; answers its address."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            suffix = f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
            connection.execute(f'CREATE DATABASE "{name}"{suffix}'.encode())
        return self.url.rsplit("/", 1)[0] + f"/{name}"

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    """PostgreSQL 18."""
    with ExitStack() as stack:
        if url := os.environ.get(GIVEN_DATABASE):
            _used["PostgreSQL"] = "given"
        elif containers_can_be_had():
            from shared.testing.containers import start_postgres

            url, stop = start_postgres()
            stack.callback(stop)
            _used["PostgreSQL"] = "container"
        else:
            from deploy.embedded.ports import free_port
            from deploy.embedded.postgres import PostgresNode
            from deploy.embedded.processes import running

            roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM
            place = tempfile.TemporaryDirectory(prefix="throughline-postgres-", dir=IN_MEMORY if roomy else None)
            folder = Path(stack.enter_context(place))
            folder.chmod(0o755)
            settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            node = PostgresNode(folder / "data", free_port(), "test", settings)
            stack.enter_context(running(node, folder / "postgres.log"))
            url = node.url
            _used["PostgreSQL"] = "embedded"
            _prove_passwords_quickly(url, node.password)
        yield DatabaseServer(url)


def _prove_passwords_quickly(url: str, password: str) -> None:
    """Half of what a connection costs both sides is 4,096 rounds of hashing, and a test makes several."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(password))


@pytest.fixture(scope="session")
def template_database(database_server: DatabaseServer) -> str:
    """The name of a database with every service's schema, to copy from."""
    from shared.db import migrate
    from shared.service import prepare_partitions
    from throughline.services import SERVICES

    name = f"template_{uuid.uuid4().hex[:8]}"
    url = database_server.make(name)
    for service in SERVICES:
        migrate(service, url)
        prepare_partitions(url, service)
    return name


@pytest.fixture
def database_url(database_server: DatabaseServer, template_database: str) -> Iterator[str]:
    """A database of one's own, migrated."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield database_server.make(name, template_database)
    database_server.drop(name)


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    """The address of a real Kafka."""
    with ExitStack() as stack:
        if bootstrap := os.environ.get(GIVEN_KAFKA):
            _used["Kafka"] = "given"
        elif containers_can_be_had():
            from shared.testing.containers import start_kafka

            bootstrap, stop = start_kafka()
            stack.callback(stop)
            _used["Kafka"] = "container"
        else:
            from deploy.embedded.kafka import KafkaNode
            from deploy.embedded.ports import free_port
            from deploy.embedded.processes import running

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="throughline-kafka-")))
            port = free_port()
            node = KafkaNode(folder / "data", port, free_port([port]))
            stack.enter_context(running(node, folder / "kafka.log"))
            bootstrap = node.bootstrap_servers
            _used["Kafka"] = "embedded"
        yield bootstrap


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings on a database of one's own; no Kafka."""
    from shared.testing import make_settings

    return make_settings(database_url)


@pytest.fixture
def kafka_settings(database_url: str, kafka_server: str) -> Settings:
    """Settings on a database and topics of one's own."""
    from shared.kafka import apply_topics
    from shared.testing import make_settings

    made = make_settings(database_url, kafka_server, prefix=f"t{uuid.uuid4().hex[:8]}.")
    asyncio.run(apply_topics(made))
    return made


def pytest_collection_finish() -> None:
    """Take what was imported and collected out of what the collector looks through during every test."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that this one works for which servers it used."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["servers"] = _used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear which servers a working process used."""
    _used.update(getattr(node, "workeroutput", {}).get("servers", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers the run used."""
    if _used:
        used = ", ".join(f"{name}: {how}" for name, how in sorted(_used.items()))
        terminalreporter.write_line(f"servers: {used}")
