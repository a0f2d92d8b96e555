"""One supervised program: started, watched until it is ready, started again when it ends, stopped for good."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deploy.embedded.errors import CannotStart
from deploy.embedded.folder import ProcessState
from deploy.embedded.processes import Program, Running, identify, kill_group

FIRST_WAIT = 0.2
LONGEST_WAIT = 10.0
HEALTHY_AFTER = 10.0  # seconds of running after which the next end counts as the first
LOOK_EVERY = 0.1
REFUSES_SETTINGS = 78  # the exit status of a process that will never start with what it was given


class Child:
    """A program and the thread that keeps it running."""

    def __init__(
        self,
        program: Program,
        shown: ProcessState,
        log: Path,
        environment: Mapping[str, str],
        changed: Callable[[ProcessState], None],
    ) -> None:
        self.program = program
        self.shown = shown
        self.log = log
        self.failure: str | None = None
        self.refuses = False
        self.was_ready = threading.Event()
        self._environment = environment
        self._changed = changed
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._process: Running | None = None
        self._thread = threading.Thread(target=self._keep_running, name=program.name, daemon=True)

    def start(self) -> None:
        """Begin to keep it running."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Do not start it again, and tell its process to end."""
        self._stopping.set()
        with self._starting:
            self._signal(self.program.stop_signal)

    def has_stopped(self, within: float) -> bool:
        """Wait for its end; what has not ended by then is killed. Whether it ended by itself."""
        if self._thread.ident is None:  # it was never started
            return True
        self._thread.join(within)
        clean = not self._thread.is_alive()
        if not clean:
            self._signal(signal.SIGKILL)
            self._thread.join(5)
        return clean

    def _keep_running(self) -> None:
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            began = time.monotonic()
            self._run_once()
            if self._stopping.is_set():
                break
            if time.monotonic() - began > HEALTHY_AFTER:
                wait = FIRST_WAIT
            self.shown.restarts += 1
            self._show("waiting")
            self._stopping.wait(wait)
            wait = min(wait * 2, LONGEST_WAIT)
        self._show("stopped")

    def _run_once(self) -> None:
        try:
            self.program.prepare(self._environment)
            with self._starting:
                if self._stopping.is_set():
                    return
                process = self._process = self.program.start(self.log, self._environment)
        except (CannotStart, OSError) as exc:
            self.failure = str(exc)
            return
        found = identify(process.pid)
        self.shown.pid = process.pid
        self.shown.created = found.created if found else None
        self._show("starting")
        self._watch(process)
        status = process.wait()
        kill_group(process)
        self.shown.pid = self.shown.created = None
        if not self._stopping.is_set():
            self.failure = f"{self.program.name} ended with status {status}"
            self.refuses = status == REFUSES_SETTINGS

    def _watch(self, process: Running) -> None:
        """Look until it is ready, ends, or is to stop."""
        while process.poll() is None and not self._stopping.is_set():
            if self.program.is_ready(process.pid):
                self._show("ready")
                self.was_ready.set()
                return
            self._stopping.wait(LOOK_EVERY)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def _show(self, state: str) -> None:
        self.shown.state = state
        with suppress(OSError):  # on a full disk nothing can be told; the program is kept running all the same
            self._changed(self.shown)
