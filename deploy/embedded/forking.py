"""Our side of the template (`deploy.embedded.template`): start it, order copies, hear how they end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.embedded.errors import ProgramFailed
from deploy.embedded.ports import LOOPBACK
from deploy.embedded.processes import Running, launch
from deploy.embedded.programs import ServiceProcess, answers_ok

ORDER_WITHIN = 90.0


class Forked:
    """A copy of the template: what `subprocess.Popen` is for other processes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """Its status, once it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("copy", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def has_ended(self, status: int) -> None:
        """Note its end."""
        self.returncode = status
        self._ended.set()


class TemplateProgram:
    """The template as a program of the stack, and the orders to it."""

    name = "template"
    stop_signal = signal.SIGTERM

    def __init__(self, entry: str, modules: Sequence[str]) -> None:
        self._entry = entry
        self._modules = modules
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._ready = False
        self._refusing = False
        self._orders = 0
        self._pids: dict[int, int] = {}
        self._copies: dict[int, Forked] = {}

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Nothing."""

    def start(self, log: Path, environment: Mapping[str, str]) -> Running:
        """Start the template, and listen to it."""
        ours, theirs = socket.socketpair()
        with theirs:
            words = (
                "deploy.embedded.template",
                str(theirs.fileno()),
                self._entry,
                *self._modules,
            )
            process = launch(
                [sys.executable, "-m", *words],
                log=log,
                environment=environment,
                pass_fds=(theirs.fileno(),),
            )
        with self._changed:
            self._connection = ours
        threading.Thread(target=self._listen, args=(ours,), name="template-listener", daemon=True).start()
        return process

    def is_ready(self, pid: int) -> bool:
        """Whether it has imported everything."""
        return self._ready

    def fork(
        self, name: str, words: Sequence[str], log: Path, environment: Mapping[str, str], *, nice: int = 0
    ) -> Forked:
        """A copy that runs the command line with these words. Raises `ProgramFailed` when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._refusing, ORDER_WITHIN)
            if not self._ready or self._refusing or self._connection is None:
                raise ProgramFailed(f"{name} was not started: there is no template to copy.")
            self._orders += 1
            order = self._orders
            what = {
                "order": order,
                "name": name,
                "words": [*words],
                "log": str(log),
                "environment": dict(environment),
                "nice": nice,
            }
            with suppress(OSError):  # then it has ended, as the listener is about to notice
                self._connection.sendall(json.dumps(what).encode() + b"\n")
            self._changed.wait_for(
                lambda: order in self._pids or not self._ready or self._refusing,
                ORDER_WITHIN,
            )
            if order not in self._pids:
                raise ProgramFailed(f"{name} was not started: the template ended.")
            return self._copies[self._pids.pop(order)]

    def refuse(self) -> None:
        """Order no more copies; whoever waits for one gets none."""
        with self._changed:
            self._refusing = True
            self._changed.notify_all()

    def _listen(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            with suppress(OSError):
                for line in lines:
                    with self._changed:
                        self._hear(json.loads(line))
                        self._changed.notify_all()
            with self._changed:
                self._lost()
                self._changed.notify_all()

    def _hear(self, told: Mapping[str, Any]) -> None:
        if "order" in told:
            self._pids[told["order"]] = told["pid"]
            self._copies[told["pid"]] = Forked(told["pid"])
        elif "ended" in told:
            self._copies.pop(told["ended"]).has_ended(told["status"])
        else:
            self._ready = True

    def _lost(self) -> None:
        """The template has ended, and with it our way to hear of its copies: they end too, and are started anew."""
        self._ready = False
        self._connection = None
        for pid, copy in self._copies.items():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            copy.has_ended(-signal.SIGKILL)
        self._copies.clear()
        self._pids.clear()


@dataclass(frozen=True)
class ForkedProgram:
    """A process of ours that is a copy of the template."""

    name: str
    words: Sequence[str]
    ready_port: int
    template: TemplateProgram
    settings: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0

    stop_signal = signal.SIGTERM

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Nothing: services wait for what they need."""

    def start(self, log: Path, environment: Mapping[str, str]) -> Running:
        """Have it copied."""
        return self.template.fork(self.name, self.words, log, {**environment, **self.settings}, nice=self.nice)

    def is_ready(self, pid: int) -> bool:
        """Whether it says so on its management port."""
        return answers_ok(self.ready_port, "/readyz")


def service_program(
    process: ServiceProcess,
    port: int | None,
    management_port: int,
    template: TemplateProgram,
) -> ForkedProgram:
    """A service's process."""
    settings = {
        "THROUGHLINE_HOST": LOOPBACK,
        "THROUGHLINE_MANAGEMENT_PORT": str(management_port),
    }
    if port is not None:
        settings["THROUGHLINE_PORT"] = str(port)
    return ForkedProgram(
        process.name,
        ("run", process.service, *process.roles),
        management_port,
        template,
        settings,
        process.nice,
    )
