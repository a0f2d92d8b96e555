"""PostgreSQL and Kafka as containers, for tests on a machine where Docker answers."""

from collections.abc import Callable, Mapping

import docker
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from shared.service import free_port

__all__ = ["available", "start_kafka", "start_postgres"]

POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = "apache/kafka:4.3.1"
CONTROLLER_PORT = 29_093
DOCKER_TIMEOUT_S = 3
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")

# The reaper is an image of its own; the fixtures stop what they started.
testcontainers_config.ryuk_disabled = True


def available() -> bool:
    """Whether Docker answers and has the images, or can get them."""
    try:
        client = docker.from_env(timeout=DOCKER_TIMEOUT_S)
    except DockerException:
        return False
    try:
        client.ping()
        there = {tag for image in client.images.list() for tag in image.tags}
    except (DockerException, OSError):
        return False
    finally:
        client.close()
    return all(image in there or _pulled(image) for image in (POSTGRES_IMAGE, KAFKA_IMAGE))


def start_postgres() -> tuple[str, Callable[[], None]]:
    """A PostgreSQL server: its address, and what stops it."""
    name = "throughline"
    container = PostgresContainer(POSTGRES_IMAGE, username=name, password=name, dbname=name, driver=None)
    container.with_command(["postgres", *(f"-c{setting}" for setting in NOT_DURABLE)])
    container.start()
    return container.get_connection_url().replace("localhost", "127.0.0.1"), container.stop


def start_kafka() -> tuple[str, Callable[[], None]]:
    """A Kafka node: its address, and what stops it."""
    container = KafkaNodeContainer()
    container.start()
    return container.bootstrap_servers, container.stop


class KafkaNodeContainer(DockerContainer):
    """One node, broker and controller in one. It must advertise its port, so that is chosen beforehand."""

    def __init__(self, image: str = KAFKA_IMAGE) -> None:
        super().__init__(image)
        self.port = free_port()
        self.with_bind_ports(self.port, self.port)
        self.with_envs(**self._environment())
        self.waiting_for(LogMessageWaitStrategy("Kafka Server started|from RECOVERY to RUNNING"))

    @property
    def bootstrap_servers(self) -> str:
        """Where clients begin."""
        return f"127.0.0.1:{self.port}"

    def _environment(self) -> Mapping[str, str]:
        return {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": f"PLAINTEXT://:{self.port},CONTROLLER://:{CONTROLLER_PORT}",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{self.bootstrap_servers}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@localhost:{CONTROLLER_PORT}",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_LOG_CLEANER_DEDUPE_BUFFER_SIZE": "2097152",
        }


def _pulled(image: str) -> bool:
    """Whether the image could be fetched; that takes as long as it takes."""
    client = docker.from_env()
    try:
        client.images.pull(image)
    except (DockerException, OSError):
        return False
    finally:
        client.close()
    return True
