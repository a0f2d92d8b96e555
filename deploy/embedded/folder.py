"""The data folder of a stack: who runs on it, its secrets, its ports, what runs now."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.embedded.errors import FolderInUse, SecretsLost
from deploy.embedded.processes import ProcessId, identify, is_alive


@dataclass(frozen=True, slots=True)
class StackSecrets:
    """Made at the first start, and kept as long as the data."""

    secret: str
    postgres_password: str


@dataclass(slots=True)
class ProcessState:
    """One row of `throughline ps`. `service` is None for what is not ours: the servers and the gateway."""

    name: str
    service: str | None
    roles: list[str]
    pid: int | None
    state: str
    restarts: int
    port: int | None
    management_port: int | None
    created: float | None = None


@dataclass(frozen=True, slots=True)
class StackState:
    """What runs on a data folder, as its supervisor last wrote it down."""

    url: str
    processes: list[ProcessState]


class DataFolder:
    """Everything that a stack keeps, below one folder that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.ports = self.path / "ports.json"
        self._lock = self.path / "lock"
        self._secrets = self.path / "secrets.json"
        self._state = self.path / "state.json"
        self._settings = self.path / "settings.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only supervisor on this folder for the length of a block. The lock ends with the process."""
        # Its server runs as another account when we are root, and must be able to pass through.
        self.logs.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.logs.chmod(0o700)
        with self._lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(self._in_use()) from None
            lock.truncate(0)
            lock.write(json.dumps(asdict(self._myself())))
            lock.flush()
            yield
            lock.truncate(0)

    def supervisor(self) -> ProcessId | None:
        """The living supervisor of this folder."""
        try:
            process = ProcessId(**json.loads(self._lock.read_text()))
        except (FileNotFoundError, ValueError):
            return None
        return process if is_alive(process) else None

    def make_secrets(self) -> StackSecrets:
        """The secrets of this folder; made if there is no data yet that others were used for."""
        if kept := self.read_secrets():
            return kept
        if (self.path / "postgres").exists():
            raise SecretsLost(
                f"{self._secrets} is gone but there is data that was written with it: "
                "put it back, or remove the data folder to start anew."
            )
        made = StackSecrets(secrets.token_hex(32), secrets.token_urlsafe(24))
        _write(self._secrets, asdict(made), durable=True)
        return made

    def read_secrets(self) -> StackSecrets | None:
        """The secrets of this folder, if it ever was started."""
        try:
            return StackSecrets(**json.loads(self._secrets.read_text()))
        except FileNotFoundError:
            return None

    def write_state(self, state: StackState) -> None:
        """Tell what runs."""
        _write(self._state, asdict(state))

    def read_state(self) -> StackState | None:
        """What ran when the supervisor last told."""
        try:
            state = json.loads(self._state.read_text())
        except FileNotFoundError:
            return None
        return StackState(state["url"], [ProcessState(**process) for process in state["processes"]])

    def write_settings(self, settings: Mapping[str, str]) -> None:
        """Tell commands that run beside the stack what its processes were started with."""
        _write(self._settings, dict(settings))

    def read_settings(self) -> dict[str, str] | None:
        """The environment of the stack's processes, secrets among it."""
        try:
            settings: dict[str, str] = json.loads(self._settings.read_text())
        except FileNotFoundError:
            return None
        return settings

    def forget_run(self) -> None:
        """Nothing runs any more."""
        self._state.unlink(missing_ok=True)

    def _in_use(self) -> str:
        state = self.read_state()
        where = f" at {state.url}" if state else ""
        return (
            f"Another stack runs on the data folder {self.path}{where}: "
            "stop it with `throughline down`, or choose another folder with --data-dir."
        )

    @staticmethod
    def _myself() -> ProcessId:
        process = identify(os.getpid())
        assert process is not None
        return process


def _write(file: Path, content: dict[str, Any], *, durable: bool = False) -> None:
    """Replace a file in one step, readable by its owner alone; `durable` before anything relies on it."""
    making = file.with_suffix(".making")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        json.dump(content, output, indent=2)
        output.flush()
        if durable:
            os.fsync(output.fileno())
    making.replace(file)
