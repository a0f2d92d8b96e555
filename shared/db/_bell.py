"""How a relay hears that there is something to read in an event log, and whether somebody waits for it."""

import asyncio
from collections.abc import Iterable

API_LOG = 0
CONSUMER_LOG = 1
CALM = "calm"


class Bell:
    """Wakes the relay of this process, as long as it has one that works: then the server need not be asked to.

    `rung`: there is something to read; `hurried`: somebody waits for it.
    """

    def __init__(self) -> None:
        self.is_heard = False
        self.rung = asyncio.Event()
        self.hurried = asyncio.Event()
        self._logs: dict[int, bool] = {}

    def ring(self, log: int, *, calm: bool) -> None:
        """There is something to read in a log, which has time if it is `calm`."""
        self._logs[log] = self.hurries(log) or not calm
        self._show()

    def hurries(self, log: int) -> bool:
        """Whether somebody waits for what is in a log."""
        return self._logs.get(log, False)

    def fall_silent(self, logs: Iterable[int]) -> None:
        """What was rung for in these logs is about to be read."""
        for each in logs:
            self._logs.pop(each, None)
        self._show()

    def _show(self) -> None:
        for event, holds in ((self.rung, bool(self._logs)), (self.hurried, any(self._logs.values()))):
            if holds:
                event.set()
            else:
                event.clear()


def notice_of(log: int, *, calm: bool) -> str:
    """What the server tells a relay: the log in which there is something, and whether nobody waits for it."""
    return f"{log} {CALM}" if calm else str(log)


def noticed(notice: str) -> tuple[int, bool]:
    """The log, and whether it is calm; what does not say is taken for what somebody waits for."""
    log, _, word = notice.partition(" ")
    return int(log) if log.isdecimal() else API_LOG, word == CALM
