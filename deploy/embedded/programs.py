"""The stack's own programs: one process a service role, and the gateway before them."""

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.embedded.ports import LOOPBACK
from deploy.embedded.processes import launch


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """Which roles of a service share a process, and how much it gives way to the others, as `nice` counts."""

    name: str
    service: str
    roles: tuple[str, ...]
    nice: int = 0


@dataclass(frozen=True)
class PythonProgram:
    """A process of ours that answers 200 on a path once it does its work."""

    name: str
    words: Sequence[str]
    ready_port: int
    ready_path: str
    settings: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()

    stop_signal = signal.SIGTERM

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Nothing: services wait for what they need."""

    def start(self, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the interpreter that runs us."""
        return launch(
            [sys.executable, "-m", *self.words],
            log=log,
            environment={**environment, **self.settings},
            pass_fds=self.descriptors,
        )

    def is_ready(self, pid: int) -> bool:
        """Whether it says so."""
        return answers_ok(self.ready_port, self.ready_path)


def answers_ok(port: int, path: str, within: float = 2.0) -> bool:
    """Whether a GET of a path is answered with 200."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=within) as connection:
            connection.settimeout(within)
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {LOOPBACK}\r\nconnection: close\r\n\r\n".encode())
            status = connection.recv(12, socket.MSG_WAITALL)
    except OSError:
        return False
    return status == b"HTTP/1.1 200"


def gateway_program(listener: socket.socket, services: Mapping[str, int]) -> PythonProgram:
    """The gateway, on a socket that stays open while its process is replaced."""
    routes = (f"{name}={port}" for name, port in services.items())
    words = ("deploy.embedded.gateway", "--fd", str(listener.fileno()), *routes)
    return PythonProgram(
        "gateway",
        words,
        listener.getsockname()[1],
        "/",
        descriptors=(listener.fileno(),),
    )
