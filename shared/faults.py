"""Named points at which a process can be told to die, so that tests can prove what a crash there loses."""

import os
import signal
from collections import Counter

_armed: dict[str, int] = {}
_hits: Counter[str] = Counter()


def arm(specification: str) -> None:
    """Arm failpoints: `name:n,name:n`, to die at the n-th hit of a name. Empty disarms all."""
    _armed.clear()
    _hits.clear()
    for item in filter(None, specification.split(",")):
        name, _, count = item.partition(":")
        _armed[name.strip()] = int(count or 1)


def failpoint(name: str) -> None:
    """Die here with SIGKILL if this point is armed and its time has come."""
    if not _armed or name not in _armed:
        return
    _hits[name] += 1
    if _hits[name] >= _armed[name]:
        os.kill(os.getpid(), signal.SIGKILL)
