"""Calls about people that come at one time share a transaction: what costs is the transaction, not the call.

While batches are carried out the next one fills, so that a lone call waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.capture.deciding import ATTEMPTS, met_another
from services.capture.leads.batches import capture_leads
from services.capture.leads.handlers import Captured, LeadCall
from services.capture.leads.inputs import LeadOut
from services.capture.leads.views import leads_out
from shared.errors import Rejected, Unavailable
from shared.personal import Draft, Encoded
from shared.service import Runtime

MOST_AT_ONCE = 64
MOST_WAITING = 5_000
WORKERS = 2

Answer = tuple[Captured, LeadOut]
Touch = Callable[[Captured], Draft | Encoded | None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A call, the touch that comes along once its lead is known, and whoever waits for the answer."""

    call: LeadCall
    touch: Touch
    answer: "asyncio.Future[Answer]"


class Gathering:
    """Takes calls that are answered when they are carried out, many of them at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queue: deque[_Waiting] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    async def capture(self, call: LeadCall, touch: Touch) -> Answer:
        """What became of a call, and the profile as it is then. Raises what `capture_lead` raises, and Unavailable."""
        if len(self._queue) >= MOST_WAITING:
            raise Unavailable("more calls about people wait than can be held")
        waiting = _Waiting(call, touch, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if len(self._workers) < WORKERS:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await waiting.answer

    async def _work(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(MOST_AT_ONCE, len(self._queue)))]
            await self._carry_out([waiting for waiting in batch if not waiting.answer.done()])

    async def _carry_out(self, batch: Sequence[_Waiting]) -> None:
        """Carry a batch out, again if it met another. One that fails otherwise is tried call by call."""
        for attempt in range(1, ATTEMPTS + 1):
            trying = asyncio.create_task(self._at_once(batch))
            await asyncio.wait([trying])
            fault = trying.exception()
            if fault is None:
                return
            if isinstance(fault, Unavailable) and met_another(fault) and attempt < ATTEMPTS:
                continue
            if isinstance(fault, Unavailable) or len(batch) == 1:
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(fault)
                return
            for waiting in batch:
                await self._carry_out([waiting])
            return

    async def _at_once(self, batch: Sequence[_Waiting]) -> None:
        runtime = self._runtime
        async with runtime.database.transaction() as tx:
            became = await capture_leads([waiting.call for waiting in batch], tx, runtime)
            touches = [
                touch
                for waiting, captured in zip(batch, became, strict=True)
                if isinstance(captured, Captured) and (touch := waiting.touch(captured)) is not None
            ]
            if touches:
                await runtime.keys.emit_drafts(tx, touches)
            known = sorted({captured.lead_id for captured in became if isinstance(captured, Captured)})
            profiles = await leads_out(tx.connection, known, runtime)
        for waiting, captured in zip(batch, became, strict=True):
            assert captured is not None, "nobody is erased since a call that is answered now"
            if waiting.answer.done():
                continue
            if isinstance(captured, Rejected):
                waiting.answer.set_exception(captured)
            else:
                waiting.answer.set_result((captured, profiles[captured.lead_id]))
