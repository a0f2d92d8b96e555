"""The embedded PostgreSQL and Kafka: what they keep through a kill, and where they listen."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.embedded import kafka
from deploy.embedded.errors import JarsMissing, JavaMissing
from deploy.embedded.kafka import KafkaNode
from deploy.embedded.ports import LOOPBACK, free_port, is_listening, kept_ports
from deploy.embedded.postgres import PostgresNode
from deploy.embedded.processes import Running, running, stop, wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder below one that only its owner may enter, as a checkout in a home folder is."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def fresh_java() -> Iterator[None]:
    """Java is looked for again."""
    kafka.java.cache_clear()
    yield
    kafka.java.cache_clear()


def node(folder: Path) -> PostgresNode:
    return PostgresNode(folder / "postgres", free_port(), "secret")


def listening(process: Running) -> set[str]:
    """The addresses that a process accepts connections on."""
    connections = psutil.Process(process.pid).net_connections(kind="inet")
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def test_postgres_listens_on_loopback_alone_and_wants_the_password(folder: Path) -> None:
    server = node(folder)
    with running(server, folder / "log") as process:
        assert listening(process) == {LOOPBACK}
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url.replace("secret", "wrong"))
        with psycopg.connect(server.url) as connection:
            settings: dict[str, str] = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert settings["server_version"].startswith("18.")
    assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on", "on", "on")
    assert settings["unix_socket_directories"] == ""


def test_postgres_keeps_what_was_committed_through_a_kill(folder: Path) -> None:
    server = node(folder)
    server.prepare(os.environ)
    process = server.start(folder / "log", os.environ)
    assert wait_until(lambda: server.is_ready(process.pid), 60)
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        connection.commit()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (server.data / "postmaster.pid").exists()
    with running(server, folder / "log"), psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]


def test_postgres_starts_although_its_lock_file_names_another_process(folder: Path) -> None:
    server = node(folder)
    with running(server, folder / "log"):
        lock = (server.data / "postmaster.pid").read_text()
    (server.data / "postmaster.pid").write_text(lock.replace(lock.partition("\n")[0], str(os.getpid())))
    with running(server, folder / "log"), psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_ends_an_old_server_on_its_folder(folder: Path) -> None:
    server = node(folder)
    server.prepare(os.environ)
    old = server.start(folder / "log", os.environ)
    assert wait_until(lambda: server.is_ready(old.pid), 60)
    other = PostgresNode(server.folder, free_port(), "secret")
    with running(other, folder / "log"), psycopg.connect(other.url):
        assert old.wait(60) is not None
        assert not is_listening(server.port)


def test_a_start_that_was_killed_while_making_the_folder_is_made_anew(folder: Path) -> None:
    server = node(folder)
    half = folder / "postgres.making"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with running(server, folder / "log"), psycopg.connect(server.url):
        assert not half.exists()
        assert not (folder / "postgres.password").exists()


@pytest.mark.slow
async def test_kafka_keeps_what_it_acknowledged_through_a_kill(folder: Path) -> None:
    port = free_port()
    server = KafkaNode(folder / "kafka", port, free_port([port]))
    server.prepare(os.environ)
    process = server.start(folder / "log", os.environ)
    assert wait_until(lambda: server.is_ready(process.pid), 60)
    assert listening(process) == {f"::ffff:{LOOPBACK}"} or listening(process) == {LOOPBACK}
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=server.bootstrap_servers, acks="all")
    await producer.start()
    await producer.send_and_wait("kept", b"one")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await producer.stop()

    port = free_port()  # the old port may be another's by now
    moved = KafkaNode(server.folder, port, free_port([port]))
    with running(moved, folder / "log"):
        consumer = AIOKafkaConsumer("kept", bootstrap_servers=moved.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        assert (await consumer.getone()).value == b"one"
        await consumer.stop()


def test_an_old_or_missing_java_is_told_with_its_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fresh_java: None
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(JavaMissing, match=r"^No Java was found: install Java 17 or newer .*\.$"):
        kafka.java()
    old = folder / "java"
    old.write_text("#!/bin/sh\necho 'java version \"1.8.0_402\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(JavaMissing, match=r"is 1\.8\.0_402, too old for Kafka: install Java 17 or newer .*\.$"):
        kafka.java()


def test_missing_jars_are_told_with_their_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "JARS", folder)
    with pytest.raises(JarsMissing, match="run `make install`"):
        kafka.class_path()


def test_a_process_that_does_not_end_when_asked_is_killed(folder: Path) -> None:
    server = node(folder)
    server.prepare(os.environ)
    process = server.start(folder / "log", os.environ)
    assert wait_until(lambda: server.is_ready(process.pid), 60)
    os.kill(process.pid, signal.SIGSTOP)
    assert stop(process, signal.SIGINT, within=0.2) is False
    assert process.poll() is not None


def test_ports_are_kept_and_changed_only_where_something_else_took_them(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = kept_ports(file, ["a", "b"])
    assert kept_ports(file, ["a", "b"]) == first
    assert len(set(first.values())) == 2
    import socket

    with socket.create_server((LOOPBACK, first["a"])):
        moved = kept_ports(file, ["a", "b"])
    assert moved["a"] != first["a"]
    assert moved["b"] == first["b"]
