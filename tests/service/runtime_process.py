"""A process of the runtime on its own, to be frozen or killed: `python -m tests.service.runtime_process ROLE…`.

Its service is the one of `runtime_world`; a touch of type `never_ends` keeps its handler busy for good.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from shared.db import Tx
from shared.events import TouchRecorded
from shared.kafka import on_batch
from shared.service import run
from shared.settings import Settings
from tests.service.runtime_world import code, write_down


async def write_down_or_hang(events: Sequence[Any], tx: Tx) -> None:
    if any(event.type == "never_ends" for event in events):
        await asyncio.Event().wait()
    await write_down(events, tx)


if __name__ == "__main__":
    roles: Any = sys.argv[1:]
    sys.exit(run(code(on_batch(TouchRecorded, write_down_or_hang)), roles, Settings()))
