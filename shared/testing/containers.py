"""PostgreSQL and Kafka as containers, for tests on a machine where Docker answers."""

import os
from collections.abc import Callable

from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from shared.service import free_port

POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = "apache/kafka:4.3.1"
CONTROLLER_PORT = 29_093

# The reaper is an image of its own; the fixtures stop what they started.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


def start_postgres() -> tuple[str, Callable[[], None]]:
    """A PostgreSQL server: its address, and what stops it."""
    name = "throughline"
    container = PostgresContainer(POSTGRES_IMAGE, username=name, password=name, dbname=name, driver=None)
    container.start()
    return container.get_connection_url().replace("localhost", "127.0.0.1"), container.stop


def start_kafka() -> tuple[str, Callable[[], None]]:
    """A Kafka node: its address, and what stops it. It must advertise its port, so that is fixed beforehand."""
    port = free_port()
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:{CONTROLLER_PORT}",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@localhost:{CONTROLLER_PORT}",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }.items():
        container.with_env(name, value)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started|from RECOVERY to RUNNING"))
    container.start()
    return f"127.0.0.1:{port}", container.stop
