"""Trials on history as jobs: asked for, followed, called off, and kept for a week.

A trial runs in the api process that was asked; what it comes to stands in the database, so that any other can answer
for it. One that died with its process has stopped showing signs of life, and says so.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from aiokafka.errors import KafkaError

from services.nurture.errors import NoSuchTrial
from services.nurture.parts import Parts
from services.nurture.sequences import queries
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.trying import try_on_history
from shared.db import Tx
from shared.ids import new_id
from shared.telemetry import describe, log

State = Literal["running", "done", "cancelled", "failed"]
DIED = "the process that computed it ended; ask again"
NO_KAFKA = "the facts could not be read: Kafka did not answer; ask again"
LONGEST = timedelta(minutes=30)


class _CalledOff(Exception):
    """Somebody called the trial off."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial on history, and how many facts it has read."""

    trial_id: str
    state: State
    version: int | None
    days: int
    author: str
    asked_at: datetime
    finished_at: datetime | None
    facts: int
    report: dict[str, Any] | None
    problem: str | None


class Trials:
    """Those that run in this process, one after the other."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._alone = asyncio.Semaphore(1)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def ask(self, tx: Tx, draft: Plan, version: int | None, document: dict[str, Any], days: int, by: str) -> str:  # noqa: PLR0913  # a row
        """Note a trial; it runs once `start` is called, after the commit."""
        trial_id = new_id()
        await tx.connection.execute(queries.ASK_TRIAL, trial_id, draft.sequence_id, version, document, days, by)
        return trial_id

    def start(self, trial_id: str, draft: Plan, serving: Plan | None, days: int) -> None:
        """Run it, unless it runs."""
        if trial_id not in self._running:
            task = asyncio.create_task(self._run(trial_id, draft, serving, days))
            self._running[trial_id] = task
            task.add_done_callback(lambda task: self._over(trial_id, task))

    async def finished(self, sequence_id: str, trial_id: str, within: timedelta) -> Trial:
        """The trial, as soon as it is over, or as it stands after a while."""
        if task := self._running.get(trial_id):
            await asyncio.wait([task], timeout=within.total_seconds())
        return await self.get(sequence_id, trial_id)

    async def get(self, sequence_id: str, trial_id: str) -> Trial:
        """A trial as it stands. Raises NoSuchTrial."""
        async with self._parts.runtime.database.reading() as connection:
            row = await connection.fetchrow(queries.LOAD_TRIAL, sequence_id, trial_id)
        if row is None:
            raise NoSuchTrial("there is no such simulation; they are kept for a week")
        found = dict(row)
        if found["state"] == "failed" and found["problem"] is None:
            found["problem"] = DIED
        return Trial(**found)

    async def call_off(self, sequence_id: str, trial_id: str) -> Trial:
        """End a trial, wherever it runs; one that is over stays as it is. Raises NoSuchTrial."""
        await self.get(sequence_id, trial_id)
        await self._finish(trial_id, "cancelled")
        return await self.get(sequence_id, trial_id)

    async def _run(self, trial_id: str, draft: Plan, serving: Plan | None, days: int) -> None:
        async def progress(facts: int) -> None:
            async with self._parts.runtime.database.reading() as connection:
                if not await connection.fetchval(queries.SHOW_LIFE, trial_id, facts):
                    raise _CalledOff

        try:
            async with self._alone, asyncio.timeout(LONGEST.total_seconds()):
                await progress(0)
                report = await try_on_history(self._parts, draft, serving, days, progress)
            await self._finish(trial_id, "done", report)
        except _CalledOff:
            pass
        except (KafkaError, TimeoutError):
            await self._finish(trial_id, "failed", problem=NO_KAFKA)
        except Exception:
            await self._finish(trial_id, "failed", problem="something went wrong here; it was logged")
            raise

    def _over(self, trial_id: str, task: "asyncio.Task[None]") -> None:
        self._running.pop(trial_id, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("sequence_trial_failed", trial_id=trial_id, fault=describe(fault))

    async def _finish(
        self, trial_id: str, state: State, report: dict[str, Any] | None = None, problem: str | None = None
    ) -> None:
        async with self._parts.runtime.database.reading() as connection:
            await connection.execute(queries.FINISH_TRIAL, trial_id, state, report, problem)
