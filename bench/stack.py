"""Servers and processes to measure: real PostgreSQL with fsync, real Kafka, and single roles of the product."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from deploy.embedded.kafka import KafkaNode
from deploy.embedded.ports import free_port
from deploy.embedded.postgres import PostgresNode
from deploy.embedded.processes import running
from shared.db import migrate
from shared.secrets import Secrets
from shared.service import prepare_partitions
from shared.settings import Settings
from shared.web import SCOPES, create_token
from throughline.services import SERVICES

SECRET = "be" * 32
START_TIMEOUT_S = 60
PLAIN_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = ANY(%s::text[]::regclass[])
    AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)
"""


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and Kafka, empty."""

    database_url: str
    kafka: str
    folder: Path

    def fresh_database(self) -> str:
        """A database of its own, migrated."""
        name = f"bench_{uuid.uuid4().hex[:10]}"
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE bench_template'.encode())
        return self.database_url.rsplit("/", 1)[0] + f"/{name}"

    def environment(self, database_url: str, prefix: str) -> dict[str, str]:
        """The settings of a process."""
        return {
            **os.environ,
            "THROUGHLINE_DATABASE_URL": database_url,
            "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "THROUGHLINE_TOPIC_PREFIX": prefix,
            "THROUGHLINE_SECRET": SECRET,
        }


def settings_of(environment: dict[str, str]) -> Settings:
    """The same settings for code in this process."""
    names = ("database_url", "kafka_bootstrap_servers", "topic_prefix", "secret")
    return Settings(**{name: environment[f"THROUGHLINE_{name.upper()}"] for name in names})  # type: ignore[arg-type]


def token() -> str:
    """A token for everything."""
    return create_token(Secrets(SECRET), list(SCOPES), timedelta(hours=6), datetime.now(UTC))


@contextmanager
def filling(connection: "psycopg.Connection[Any]", *tables: str) -> Iterator[None]:
    """Fill large tables: their indexes that are no constraints are made once they are full, for a fraction of the cost.

    Triggers do nothing meanwhile: one that counts into a few rows walks, in one transaction, through all versions that
    it has made of them. Needs a search path that finds the tables.
    """
    found = connection.execute(PLAIN_INDEXES, [list(tables)]).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}".encode())
    connection.execute("SET session_replication_role = replica")
    yield
    connection.execute("RESET session_replication_role")
    for _, made in found:
        connection.execute(made.encode())
    connection.execute(f"VACUUM ANALYZE {', '.join(tables)}".encode())


@contextmanager
def servers() -> Iterator[Servers]:
    """Both servers for the length of a block, on free ports and a folder of their own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="throughline-bench-")))
        folder.chmod(0o755)
        postgres = PostgresNode(folder / "postgres", free_port(), "bench")
        port = free_port()
        kafka = KafkaNode(folder / "kafka", port, free_port([port]))
        stack.enter_context(running(postgres, folder / "postgres.log"))
        stack.enter_context(running(kafka, folder / "kafka.log"))
        made = Servers(postgres.url, kafka.bootstrap_servers, folder)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE bench_template")
        template = postgres.url.rsplit("/", 1)[0] + "/bench_template"
        for service in SERVICES:
            migrate(service, template)
            prepare_partitions(template, service)
        yield made


@contextmanager
def process(words: list[str], environment: dict[str, str], ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process of the checkout, ready as soon as this address answers 200, ended with the block."""
    child = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(ready):
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(words)} did not become ready")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(25)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def role(service: str, roles: list[str], environment: dict[str, str]) -> Iterator[int]:
    """A process with roles of a service; answers its port."""
    port, management = free_port(), free_port()
    own = {**environment, "THROUGHLINE_PORT": str(port), "THROUGHLINE_MANAGEMENT_PORT": str(management)}
    ready = f"http://127.0.0.1:{management}/{'readyz' if roles == ['api'] else 'livez'}"
    with process(["-m", "throughline", "run", service, *roles], own, ready):
        yield port


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310  # an address of this machine
            return bool(answer.status == 200)
    except OSError:
        return False
