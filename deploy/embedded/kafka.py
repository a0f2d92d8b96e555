"""A real single-node Apache Kafka 4 (KRaft: broker and controller in one) on the machine's Java.

`python -m deploy.embedded.kafka check|archive` looks whether this machine can run it, and makes the class archive that
halves its start; `make install` does both once.
"""

import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.embedded.errors import CannotStart, JarsMissing, JavaMissing
from deploy.embedded.ports import LOOPBACK, free_port
from deploy.embedded.processes import launch, running

HOME = Path(__file__).resolve().parents[2] / ".kafka"
JARS = HOME / "libs"
OLDEST_JAVA = 17
_REMEDY = "install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless) and put it on the path."

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={folder}/log
num.partitions=12
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
log.initial.task.delay.ms=100
num.network.threads=2
num.io.threads=2
background.threads=2
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""

_LOGGING = """\
Configuration:
  Appenders:
    Console: {name: STDOUT, PatternLayout: {pattern: "%d %p %c{1}: %m%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: STDOUT}]}
    Logger: [{name: kafka.server.KafkaRaftServer, level: INFO}]
"""

_METADATA, _VERSION, _CORRELATION = 3, 1, 1
_NO_TOPICS = 0


@dataclass(frozen=True)
class Java:
    """The Java that the path names."""

    program: str
    version: str


@cache
def java() -> Java:
    """The Java on the path, if it is new enough for the broker."""
    program = shutil.which("java")
    if program is None:
        raise JavaMissing(f"No Java was found: {_REMEDY}")
    told = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "((?:1\.)?(\d+)[^"]*)"', told)
    if found is None or int(found[2]) < OLDEST_JAVA:
        version = found[1] if found else "of no known version"
        raise JavaMissing(f"The Java on the path ({program}) is {version}, too old for Kafka: {_REMEDY}")
    return Java(program, found[1])


def class_path() -> str:
    """Kafka's jars, in an order that is always the same, as the class archive demands."""
    if not (JARS / ".complete").exists():
        raise JarsMissing(f"Kafka's jars are not in {JARS}: run `make install`.")
    return ":".join(str(jar) for jar in sorted(JARS.glob("*.jar")))


def class_archive() -> Path:
    """Where the archive of loaded classes for this Java is; another Java could not read it."""
    return HOME / f"classes-{java().version}.jsa"


@dataclass(frozen=True)
class KafkaNode:
    """A node on one folder and two ports. The folder is formatted at the first start."""

    folder: Path
    port: int
    controller_port: int
    heap_mb: int = 384
    archive_at_exit: Path | None = None

    name = "kafka"
    stop_signal = signal.SIGTERM

    @property
    def bootstrap_servers(self) -> str:
        """Where clients begin."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Properties for this start, and formatted storage."""
        java()
        data = self.folder.resolve()
        data.mkdir(parents=True, exist_ok=True)
        (data / "server.properties").write_text(
            _PROPERTIES.format(
                host=LOOPBACK,
                port=self.port,
                controller_port=self.controller_port,
                folder=data,
            )
        )
        (data / "log4j2.yaml").write_text(_LOGGING)
        if not (data / "log" / "meta.properties").exists():
            self._format(data, environment)

    def start(self, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the node in the foreground of its own session."""
        # Without the second compiler: here a start costs half, memory a fifth less, and a record no more than with it.
        heap = ["-XX:TieredStopAtLevel=1", "-Xms128M", f"-Xmx{self.heap_mb}M", "-XX:+ExitOnOutOfMemoryError"]
        if self.archive_at_exit is not None:
            heap.append(f"-XX:ArchiveClassesAtExit={self.archive_at_exit}")
        words = self._java(*heap, "kafka.Kafka", str(self.folder.resolve() / "server.properties"))
        return launch(words, log=log, environment=environment)

    def is_ready(self, pid: int) -> bool:
        """Whether a metadata request is answered with a broker: one that is registered and not fenced."""
        request = struct.pack(">hhihi", _METADATA, _VERSION, _CORRELATION, -1, _NO_TOPICS)
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                answer = connection.recv(12, socket.MSG_WAITALL)
        except OSError:
            return False
        return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0

    def _format(self, data: Path, environment: Mapping[str, str]) -> None:
        words = self._java(
            *(
                "-Xmx128M",
                "-XX:TieredStopAtLevel=1",
                "kafka.tools.StorageTool",
                "format",
                "--ignore-formatted",
            ),
            *(
                "--cluster-id",
                "dGhyb3VnaGxpbmUta2Fma2E",
                "--config",
                str(data / "server.properties"),
            ),
        )
        done = subprocess.run(words, capture_output=True, text=True, env=dict(environment), check=False)
        if done.returncode != 0:
            raise CannotStart(
                f"Kafka's storage could not be formatted: {' '.join((done.stdout + done.stderr).split())}"
            )

    def _java(self, *words: str) -> list[str]:
        data = self.folder.resolve()
        archive = class_archive()
        share = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() and self.archive_at_exit is None else []
        logging = [
            f"-Dlog4j2.configurationFile={data / 'log4j2.yaml'}",
            f"-Dkafka.logs.dir={data}",
        ]
        return [
            java().program,
            *share,
            "-Xlog:disable",
            *logging,
            "-cp",
            class_path(),
            *words,
        ]


def make_class_archive() -> None:
    """Run a node once and keep what it loaded, so that later ones start in half the time."""
    archive = class_archive()
    with tempfile.TemporaryDirectory(dir=HOME) as scratch:
        making = Path(scratch) / archive.name
        port = free_port()
        node = KafkaNode(Path(scratch) / "node", port, free_port([port]), archive_at_exit=making)
        with running(node, Path(scratch) / "log"):
            pass
        if making.exists():
            making.replace(archive)


def main(task: str) -> None:
    """Carry out a task of the installation; ends with a sentence where it cannot be done."""
    try:
        if task == "check":
            java()
        else:
            make_class_archive()
    except CannotStart as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main(sys.argv[1])
