"""Work that takes longer than a request: followed, called off, and what it came to kept for whoever asks.

A job runs in the process that was asked; how it stands is a row of its service's own table, so that any other process
can answer for it. One that died with its process has stopped showing signs of life, and says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

from shared.db import Database
from shared.telemetry import describe, log

State = Literal["running", "done", "cancelled", "failed"]
Progress = Callable[..., Awaitable[None]]
"""Told how far a job is, in the numbers that its table has for that; ends the job if somebody called it off."""

Compute = Callable[[Progress], Awaitable[dict[str, Any]]]
SIGN_S = 2.0
DIED = "the process that computed it ended; ask again"


class JobFailed(Exception):
    """A job cannot be done; the text says why, and what to do."""


class _CalledOff(Exception):
    """Somebody ended the job."""


class Jobs:
    """Those of one kind that run in this process, one after the other.

    `show_life` is a statement that takes a job's id and its progress and answers true while nobody has ended it;
    `finish` takes id, state, report and problem and changes only what runs. `name` is that of the log line.
    """

    def __init__(self, database: Database, name: str, show_life: str, finish: str) -> None:
        self._database = database
        self._name = name
        self._show_life = show_life
        self._finish = finish
        self._alone = asyncio.Semaphore(1)
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, job_id: str, compute: Compute, *progress: int) -> None:
        """Run a job that is noted and committed, unless it runs; `progress` is how far it is at first."""
        if job_id not in self._running:
            task = asyncio.create_task(self._run(job_id, compute, progress))
            self._running[job_id] = task
            task.add_done_callback(lambda task: self._over(job_id, task))

    async def wait(self, job_id: str, within: timedelta) -> None:
        """Until a job of this process is over, or for a while."""
        if task := self._running.get(job_id):
            await asyncio.wait([task], timeout=within.total_seconds())

    async def finish(
        self, job_id: str, state: State, report: dict[str, Any] | None = None, problem: str | None = None
    ) -> None:
        """End a job, wherever it runs; one that is over stays as it is."""
        async with self._database.reading() as connection:
            await connection.execute(self._finish, job_id, state, report, problem)

    async def _run(self, job_id: str, compute: Compute, progress: tuple[int, ...]) -> None:
        place = [progress]

        async def show(*progress: int) -> None:
            place[0] = progress
            async with self._database.reading() as connection:
                if not await connection.fetchval(self._show_life, job_id, *progress):
                    raise _CalledOff

        async def signs_of_life() -> dict[str, Any]:
            while True:
                await asyncio.sleep(SIGN_S)
                await show(*place[0])

        async def in_turn() -> dict[str, Any]:
            async with self._alone:
                return await compute(show)

        tasks = [asyncio.create_task(signs_of_life()), asyncio.create_task(in_turn())]
        try:
            (first, *_), _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self.finish(job_id, "done", await first)
        except _CalledOff:
            pass
        except JobFailed as exc:
            await self.finish(job_id, "failed", problem=str(exc))
        except Exception:
            await self.finish(job_id, "failed", problem="something went wrong here; it was logged")
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, job_id: str, task: "asyncio.Task[None]") -> None:
        self._running.pop(job_id, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error(self._name, job_id=job_id, fault=describe(fault))


def told_died(row: dict[str, Any]) -> dict[str, Any]:
    """A job's row; one that failed without a word has died with its process."""
    died = row["state"] == "failed" and row["problem"] is None
    return {**row, "problem": DIED} if died else row
