"""A whole stack as a stranger runs it: `throughline up` on a data folder, its processes killed from outside."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from deploy.embedded.folder import DataFolder
from deploy.embedded.ports import free_port

SERVICES = ("capture", "scoring", "routing", "nurture", "attribution")
COMMAND = (sys.executable, "-m", "throughline")


class Stack:
    """The stack on one folder: started, commanded, asked and killed."""

    def __init__(self, folder: Path, smtp_url: str) -> None:
        self.folder = DataFolder(folder)
        self._where = ["--data-dir", str(folder)]
        self._port = free_port()
        plain = {name: value for name, value in os.environ.items() if not name.startswith("THROUGHLINE_")}
        self._environment = {**plain, "THROUGHLINE_SMTP_URL": smtp_url}
        self.token = ""

    def up(self) -> None:
        """Start it, or start it again after its supervisor was killed; returns when all of it is ready."""
        self.command("up", "--detach", "--port", str(self._port))
        if not self.token:
            scopes = [word for service in SERVICES for word in ("--scope", f"{service}:admin")]
            self.token = self.command("tokens", "create", *scopes, "--expires", "1d").strip()

    def down(self) -> None:
        """Stop it."""
        self.command("down")

    def command(self, *words: str) -> str:
        """What a command beside the stack prints. Where it ends otherwise than well, that is a defect."""
        done = subprocess.run(
            [*COMMAND, *words, *self._where], env=self._environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stderr.strip()}"
        return done.stdout

    def client(self) -> httpx.Client:
        """A client of the base URL with every right."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self._port}", headers=headers, timeout=20)

    def processes(self) -> list[dict[str, Any]]:
        """What `throughline ps --json` shows."""
        rows: list[dict[str, Any]] = json.loads(self.command("ps", "--json"))
        return rows

    def pid(self, name: str) -> int | None:
        """The process of this name, as the supervisor last wrote it down."""
        state = self.folder.read_state()
        return next((row.pid for row in state.processes if row.name == name), None) if state else None

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """A signal to a process; nothing where it is dead already."""
        pid = self.pid(name)
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, number)

    def kill_supervisor(self) -> None:
        """Kill -9 `up` itself; what it started goes on without it."""
        supervisor = self.folder.supervisor()
        assert supervisor is not None
        os.kill(supervisor.pid, signal.SIGKILL)

    def kill_backend(self, rng: random.Random) -> None:
        """Kill -9 a server process of PostgreSQL that works for a client, by which all of them end."""
        for backend in self._backends(rng):
            with suppress(psutil.Error):
                backend.kill()
                return

    def _backends(self, rng: random.Random) -> list[psutil.Process]:
        with suppress(psutil.Error):
            children = psutil.Process(self.pid("postgres")).children()
            found = [child for child in children if re.search(r"127\.0\.0\.1\(", " ".join(child.cmdline()))]
            rng.shuffle(found)
            return found
        return []

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        settings = self.folder.read_settings()
        assert settings is not None
        url = settings["THROUGHLINE_DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def logs(self) -> Iterator[tuple[str, str]]:
        """Every line of every log, with the name of the process."""
        for path in sorted(self.folder.logs.glob("*.log*")):
            for line in path.read_text(errors="replace").splitlines():
                yield path.name.split(".")[0], line


@contextmanager
def running_stack(folder: Path, smtp_url: str) -> Iterator[Stack]:
    """A stack for the length of a block."""
    stack = Stack(folder, smtp_url)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
