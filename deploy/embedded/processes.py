"""Programs as operating-system processes: started in groups of their own, recognised later, ended for certain."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from deploy.embedded.errors import CannotStart, ProgramFailed

MARK = "THROUGHLINE_STACK"
"""Environment variable that every process of a stack carries; its value is the stack's data folder."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process. The time of its birth tells it from a later one that was given the same number."""

    pid: int
    created: str | float


def identify(pid: int) -> ProcessId | None:
    """The living process with this number."""
    try:
        return ProcessId(pid, _birth(psutil.Process(pid)))
    except psutil.Error:
        return None


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs (one that has ended and was not collected does not)."""
    try:
        found = psutil.Process(process.pid)
        same = process.created in (_birth(found), found.create_time())  # earlier versions wrote the time of day
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _birth(process: psutil.Process) -> str:
    """When a process was born: so long after which start of the machine.

    The time of day of that start, and with it of every birth, is another one whenever the clock is set.
    """
    born = process.create_time()
    this_start = Path(getattr(psutil, "PROCFS_PATH", "/proc"), "sys/kernel/random/boot_id")
    if not this_start.is_file():  # no Linux
        return f"{born:.2f}"
    return f"{born - psutil.boot_time():.2f} {this_start.read_text().strip()}"


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that a program runs under when we are root."""

    uid: int
    gid: int

    def prefix(self, paths: Sequence[Path]) -> list[str]:
        """Words before a command that give up root for it, yet let it reach `paths`.

        A checkout below a folder that only root may enter (such as /root) keeps a single capability, the one that
        opens folders; without it nothing of PostgreSQL's could be read there.
        """
        if all(self._reaches(path) for path in paths):
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise CannotStart(
                f"PostgreSQL does not run as root and another account cannot enter {paths[0]}: "
                "move the checkout to a folder that everyone may enter, or install setpriv (package util-linux)."
            )
        keep = "-all,+dac_override"
        return [
            *(setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"),
            *(
                "--securebits=+no_setuid_fixup",
                f"--inh-caps={keep}",
                f"--ambient-caps={keep}",
            ),
        ]

    def _reaches(self, path: Path) -> bool:
        return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def launch(  # noqa: PLR0913  # what a process is started with
    argv: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    account: Account | None = None,
    reaching: Sequence[Path] = (),
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own (a Ctrl-C in the terminal is ours to handle), its output in `log`."""
    prefix = account.prefix(reaching) if account is not None else []
    drop = account if not prefix else None  # otherwise the prefix gives up root itself
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", opener=_private) as output:
        return subprocess.Popen(
            [*prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd="/" if account is not None else None,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            user=drop.uid if drop else None,
            group=drop.gid if drop else None,
            extra_groups=[] if drop else None,
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def marked(folder: Path) -> list[psutil.Process]:
    """The living processes that belong to the stack of this data folder, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], first: signal.Signals, within: float) -> None:
    """Ask processes to end, and kill those that have not after `within` seconds."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(first)
    _, left = psutil.wait_procs(processes, timeout=within)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


class Running(Protocol):
    """A process that was started: a `subprocess.Popen`, or what looks like one."""

    @property
    def pid(self) -> int:
        """Its number; that of its process group too."""

    def poll(self) -> int | None:
        """Its status, once it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""


def kill_group(process: Running) -> None:
    """Kill what a program may have left in its process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class Program(Protocol):
    """Something that runs as one process of the stack."""

    @property
    def name(self) -> str:
        """What `throughline ps` calls it; its log is named after it."""

    @property
    def stop_signal(self) -> signal.Signals:
        """What ends it cleanly."""

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Whatever must be there before it starts; nothing when it is there already."""

    def start(self, log: Path, environment: Mapping[str, str]) -> Running:
        """Start its process."""

    def is_ready(self, pid: int) -> bool:
        """Whether it does its work now."""


def wait_until(check: Callable[[], bool], timeout: float, every: float = 0.05) -> bool:
    """Whether `check` became true in time."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def stop(process: Running, first: signal.Signals, within: float = 20.0) -> bool:
    """End a process we started: ask, wait, kill. Whether it ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, first)
    try:
        process.wait(within)
        clean = True
    except subprocess.TimeoutExpired:
        clean = False
    kill_group(process)
    process.wait()
    return clean


@contextmanager
def running(program: Program, log: Path, timeout: float = 60.0) -> Iterator[Running]:
    """One program by itself, ready, for as long as the block lasts; for tests and tools that need no whole stack."""
    program.prepare(os.environ)
    process = program.start(log, os.environ)
    try:
        if not wait_until(lambda: process.poll() is not None or program.is_ready(process.pid), timeout):
            raise ProgramFailed(f"{program.name} was not ready after {timeout:.0f} s; its log is {log}.")
        if (status := process.poll()) is not None:
            raise ProgramFailed(f"{program.name} ended with status {status}; its log is {log}.")
        yield process
    finally:
        if process.poll() is None:
            stop(process, program.stop_signal)
