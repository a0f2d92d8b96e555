"""The data folder of a stack: who runs on it, its secrets, its ports, what runs now."""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from deploy.embedded.errors import FolderInUse, FolderUnusable, SecretsLost
from deploy.embedded.files import write_whole
from deploy.embedded.processes import ProcessId, identify, is_alive, wait_until

OURS = {"lock", "logs", "secrets.json", "postgres", "kafka"}
ALLOWED = {"lost+found"}


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
    created: str | float | None = None


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

    def holds_a_stack(self) -> bool:
        """Whether a stack was ever started here."""
        return self._lock.exists()

    def make(self) -> None:
        """Make the folder, for its owner alone. Raises FolderUnusable, also where it is somebody's who has no stack."""
        try:
            inside = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
            if inside - ALLOWED and not inside & OURS:
                raise FolderUnusable(
                    f"{self.path} is not empty and holds no stack: choose another folder with --data-dir."
                )
            self.logs.mkdir(parents=True, exist_ok=True)
            # Its server runs as another account when we are root, and must be able to pass through.
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            self.logs.chmod(0o700)
        except OSError as exc:
            raise FolderUnusable(f"The data folder {self.path} cannot be used: {exc}.") from exc

    @contextmanager
    def held(
        self, *, supervising: bool = False, within: float = 0.0, give_up: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Be the only one to change this folder for the length of a block. The lock ends with the process.

        A supervisor leaves its name there, and is never waited for; others that hold the folder are, for `within`
        seconds or until `give_up` says so. Raises FolderInUse.
        """
        self.make()
        with self._lock.open("a+") as lock:
            wait_until(lambda: _locked(lock) or self.supervisor() is not None or give_up(), within)
            if not _locked(lock):
                raise FolderInUse(self._in_use())
            lock.truncate(0)
            if supervising:
                lock.write(json.dumps(asdict(self._myself())))
                lock.flush()
            yield
            lock.truncate(0)

    def step_down(self) -> None:
        """The supervisor ends its stack: whoever comes now waits for that, and is not told to ask for it."""
        os.truncate(self._lock, 0)

    def supervisor(self) -> ProcessId | None:
        """The living supervisor of this folder, but for one that ends its stack."""
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
        write_whole(self._secrets, asdict(made), durable=True)
        return made

    def read_secrets(self) -> StackSecrets | None:
        """The secrets of this folder, if it ever was started."""
        try:
            return StackSecrets(**json.loads(self._secrets.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise SecretsLost(f"{self._secrets} is damaged: put it back as it was.") from None

    def write_state(self, state: StackState) -> None:
        """Tell what runs."""
        write_whole(self._state, asdict(state))

    def read_state(self) -> StackState | None:
        """What ran when the supervisor last told."""
        try:
            state = json.loads(self._state.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return StackState(state["url"], [ProcessState(**process) for process in state["processes"]])

    def write_settings(self, settings: Mapping[str, str]) -> None:
        """Tell commands that run beside the stack what its processes were started with."""
        write_whole(self._settings, dict(settings))

    def read_settings(self) -> dict[str, str] | None:
        """The environment of the stack's processes, secrets among it."""
        try:
            settings: dict[str, str] = json.loads(self._settings.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return settings

    def forget_run(self) -> None:
        """Nothing runs any more."""
        self._state.unlink(missing_ok=True)

    def _in_use(self) -> str:
        if self.supervisor() is None:
            return f"Another command is at work on the data folder {self.path}: try again when it has ended."
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


def _locked(lock: IO[str]) -> bool:
    """Whether we have the lock, now or already."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
