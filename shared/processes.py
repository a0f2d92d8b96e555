"""Work that takes long, in processes beside the one that was asked, so that this one goes on answering.

They are started anew, know nothing of this one's connections, and end when it does, however that ends.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

MIB = 2**20
EACH_MIB = 160
"""What a process takes: this one, and each beside it."""
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What the container may use in bytes, or the word max; there is no such file outside of one."""


def processes_beside(most: int) -> int:
    """How many processes, `most` at most, there are processors and memory for; 0 where there is none for any."""
    return processes_within(_memory_limit(), min(len(os.sched_getaffinity(0)), most))


def processes_within(limit: int | None, most: int) -> int:
    """As many as memory of so many bytes holds beside this one, so that none is killed for it; None is no limit."""
    return most if limit is None else max(min(limit // (EACH_MIB * MIB) - 1, most), 0)


def pool(processes: int, begin: Callable[..., None], *told: Any) -> ProcessPoolExecutor:
    """Processes that call `begin` with what they are told before anything else."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(begin, *told))


def _begin(begin: Callable[..., None], *told: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*told)


def _memory_limit() -> int | None:
    try:
        written = MEMORY_LIMIT.read_text().strip()
    except OSError:
        return None
    return int(written) if written.isdecimal() else None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
