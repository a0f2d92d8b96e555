"""The process that the stack's own processes are copies of.

Importing what a service needs takes seconds of a core; seven processes that each do it start slowly and, after a crash,
recover slowly. This one imports everything once and then forks for every order that comes over its socket, a JSON line
each. The copies share its memory. They run the command line as it would run in a container.

When the other end of the socket closes, it ends what it forked, and itself.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class Template:
    """Forks on demand, and tells how what it forked has ended."""

    def __init__(self, connection: socket.socket, entry: str) -> None:
        self._connection = connection
        self._entry = entry
        self._copies: set[int] = set()
        self._unread = b""
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._waking.fileno())

    def serve(self) -> None:
        """Carry out orders until there is nobody left to give any."""
        self._tell(ready=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        self._woken.recv(4096)
                        self._collect()
                    elif not self._read_orders():
                        self._end_copies()
                        return

    def _read_orders(self) -> bool:
        received = self._connection.recv(1 << 16)
        *orders, self._unread = (self._unread + received).split(b"\n")
        for order in orders:
            self._fork(json.loads(order))
        return bool(received)

    def _fork(self, order: Mapping[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._become(order)
                status = _run(self._entry, order["words"])
            except BaseException:  # noqa: BLE001  # nothing of the template may go on in the copy
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        self._copies.add(pid)
        self._tell(order=order["order"], pid=pid)

    def _become(self, order: Mapping[str, Any]) -> None:
        """Leave everything of the template behind except what it has imported."""
        os.setsid()
        if order["nice"]:
            os.nice(order["nice"])
            with suppress(OSError):
                Path("/proc/self/autogroup").write_text(str(order["nice"]))  # Linux may weigh sessions, not processes
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for ours in (self._connection, self._woken, self._waking):
            ours.close()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.clear()
        os.environ.update(order["environment"])
        with suppress(OSError):
            Path("/proc/self/comm").write_text(order["name"])  # what `top` shows

    def _collect(self) -> None:
        while self._copies:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._copies.discard(pid)
            self._tell(ended=pid, status=os.waitstatus_to_exitcode(status))

    def _end_copies(self) -> None:
        for pid in self._copies:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _tell(self, **what: Any) -> None:
        with suppress(OSError):  # nobody there any more: the next read says so too
            self._connection.sendall(json.dumps(what).encode() + b"\n")


def _run(entry: str, words: list[str]) -> int:
    """Run the command line in this process. Answers its status."""
    module, _, name = entry.partition(":")
    sys.argv = ["throughline", *words]
    try:
        getattr(importlib.import_module(module), name)()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return 0


def main(words: list[str]) -> None:
    """Import the modules that are named, then serve on the socket that the caller passed."""
    descriptor, entry, *modules = words
    gc.disable()  # what is imported stays; to look through it again and again is a sixth of a start
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001  # the copy that needs it meets the same error and says so in its own log
            traceback.print_exc()
    gc.enable()
    gc.collect()
    gc.freeze()  # the collector would write to every object, and so unshare its memory
    Template(socket.socket(fileno=int(descriptor)), entry).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
