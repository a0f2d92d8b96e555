"""The system that the demo shows: its own embedded one, or a running one that is named."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deploy.embedded.ports import free_port

T = TypeVar("T")
PATIENCE_S = 60.0
SERVICES = ("capture", "scoring", "routing", "nurture", "attribution")


class GaveUp(Exception):
    """Something that should have come about did not."""


@dataclass(frozen=True)
class System:
    """A running system: its API, and for an embedded one the means to kill its processes."""

    client: httpx.Client
    data_dir: Path | None

    def post(self, path: str, body: Any) -> Any:
        """POST; tries again what is answered 503, as every client should. Raises HTTPStatusError otherwise."""
        return self._send("POST", path, json=body)

    def get(self, path: str, **query: Any) -> Any:
        """GET."""
        return self._send("GET", path, params=query)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH."""
        return self._send("PATCH", path, json=body)

    def deliver(self, hook_url: str, body: bytes, headers: dict[str, str]) -> None:
        """A webhook delivery."""
        self._send("POST", httpx.URL(hook_url).path, content=body, headers=headers)

    def kill(self, name: str) -> int:
        """Kill -9 a process by the name `throughline ps` gives it; answers its pid."""
        process = next(row for row in self.processes() if row["name"] == name)
        os.kill(process["pid"], signal.SIGKILL)
        return int(process["pid"])

    def processes(self) -> list[dict[str, Any]]:
        """What `throughline ps --json` shows."""
        words = [sys.executable, "-m", "throughline", "ps", "--json", "--data-dir", str(self.data_dir)]
        rows: list[dict[str, Any]] = json.loads(subprocess.check_output(words))
        return rows

    def _send(self, method: str, path: str, **what: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self.client.request(method, path, **what)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if answer.is_error:
            raise GaveUp(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json() if answer.content else None


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    """What `look` finds, as soon as it finds something. Raises GaveUp."""
    deadline = time.monotonic() + PATIENCE_S
    reason = ""
    while time.monotonic() < deadline:
        try:
            found = look()
            if found:
                return found
        except (GaveUp, LookupError, httpx.TransportError) as exc:
            reason = f" ({exc})"
        time.sleep(0.05)
    raise GaveUp(f"{what} did not come about within {PATIENCE_S:.0f} s{reason}")


@contextmanager
def embedded(smtp_url: str) -> Iterator[System]:
    """A stack on a data folder of its own, gone with the block."""
    with tempfile.TemporaryDirectory(prefix="throughline-demo-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "data"
        command = [sys.executable, "-m", "throughline"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("THROUGHLINE_")}
        environment["THROUGHLINE_SMTP_URL"] = smtp_url
        where = ["--data-dir", str(data_dir)]
        up = [*command, "up", "--detach", "--port", str(free_port()), *where]
        try:
            url = subprocess.check_output(up, env=environment, text=True).strip()
            scopes = [word for service in SERVICES for word in ("--scope", f"{service}:admin")]
            make = [*command, "tokens", "create", *scopes, "--expires", "1d", *where]
            token = subprocess.check_output(make, env=environment, text=True).strip()
            with _client(url, token) as client:
                yield System(client, data_dir)
        finally:
            subprocess.run([*command, "down", *where], env=environment, check=False, stderr=subprocess.DEVNULL)


@contextmanager
def running(url: str, token: str) -> Iterator[System]:
    """A system that runs already."""
    with _client(url, token) as client:
        yield System(client, None)


def _client(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30)
