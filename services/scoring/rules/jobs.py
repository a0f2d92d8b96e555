"""Simulations as jobs: asked for, followed, called off, and kept for a week.

A job runs in the api process that was asked; what it comes to stands in the database, so that any other can answer for
it. One that died with its process has stopped showing signs of life, and says so.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from services.scoring.parts import Parts
from services.scoring.rules.simulation import Asked, simulate
from shared.db import Connection, Database
from shared.errors import NotFound
from shared.ids import new_id
from shared.settings import Settings
from shared.telemetry import describe, log

State = Literal["running", "done", "cancelled", "failed"]
ASK = """
WITH old AS (DELETE FROM simulations WHERE asked_at < clock_timestamp() - interval '7 days')
INSERT INTO simulations (simulation_id, state, version, document, days, sample, author)
VALUES ($1, 'running', $2, $3, $4, $5, $6)
"""
LOAD = """
SELECT simulation_id, version, days, sample, author, asked_at, finished_at, persons, done, report, problem,
    CASE WHEN state = 'running' AND alive_at < clock_timestamp() - interval '30 seconds' THEN 'failed' ELSE state END
    AS state
FROM simulations WHERE simulation_id = $1
"""
SHOW_LIFE = """
UPDATE simulations SET alive_at = clock_timestamp(), done = $2, persons = $3
WHERE simulation_id = $1 AND state = 'running' RETURNING true
"""
FINISH = """
UPDATE simulations SET state = $2, report = $3, problem = $4, finished_at = clock_timestamp()
WHERE simulation_id = $1 AND state = 'running'
"""
DIED = "the process that computed it ended; ask again"
SIGN_S = 2.0


class NoSuchSimulation(NotFound):
    """There is no such simulation, or not any more."""

    slug = "scoring/no-such-simulation"
    title = "There is no such simulation"


class _CalledOff(Exception):
    """Somebody called the simulation off."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A simulation, and how far it is: of so many `persons` so many are `done`."""

    simulation_id: str
    state: State
    version: int | None
    days: int
    sample: int | None
    author: str
    asked_at: datetime
    finished_at: datetime | None
    persons: int
    done: int
    report: dict[str, Any] | None
    problem: str | None


class Simulations:
    """Those that run in this process, one after the other: each uses all processors."""

    def __init__(self, database: Database, parts: Parts, settings: Settings) -> None:
        self._database = database
        self._parts = parts
        self._settings = settings
        self._alone = asyncio.Semaphore(1)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def ask(self, connection: Connection, asked: Asked, version: int | None, author: str) -> str:
        """Note a simulation; it runs once `start` is called, after the commit."""
        simulation_id = new_id()
        document = dict(asked.document)
        await connection.execute(ASK, simulation_id, version, document, asked.days, asked.sample, author)
        return simulation_id

    def start(self, simulation_id: str, asked: Asked) -> None:
        """Run it, unless it runs."""
        if simulation_id not in self._running:
            task = asyncio.create_task(self._run(simulation_id, asked))
            self._running[simulation_id] = task
            task.add_done_callback(lambda task: self._over(simulation_id, task))

    async def finished(self, simulation_id: str, within: timedelta) -> Simulation:
        """The simulation, as soon as it is over, or as it stands after a while."""
        if task := self._running.get(simulation_id):
            await asyncio.wait([task], timeout=within.total_seconds())
        return await self.get(simulation_id)

    async def get(self, simulation_id: str) -> Simulation:
        """A simulation as it stands. Raises NoSuchSimulation."""
        async with self._database.reading() as connection:
            row = await connection.fetchrow(LOAD, simulation_id)
        if row is None:
            raise NoSuchSimulation("there is no such simulation; they are kept for a week")
        found = dict(row)
        if found["state"] == "failed" and found["problem"] is None:
            found["problem"] = DIED
        return Simulation(**found)

    async def call_off(self, simulation_id: str) -> Simulation:
        """End a simulation, wherever it runs; one that is over stays as it is. Raises NoSuchSimulation."""
        await self._finish(simulation_id, "cancelled")
        return await self.get(simulation_id)

    async def _run(self, simulation_id: str, asked: Asked) -> None:
        place = [0, 0]

        async def progress(done: int, persons: int) -> None:
            place[:] = done, persons
            await self._show_life(simulation_id, *place)

        alive = asyncio.create_task(self._signs_of_life(simulation_id, place))
        computing = asyncio.create_task(self._compute(asked, progress))
        try:
            await asyncio.wait([alive, computing], return_when=asyncio.FIRST_COMPLETED)
            if computing.done():
                await self._finish(simulation_id, "done", await computing)
        except _CalledOff:
            pass
        except Exception:
            await self._finish(simulation_id, "failed", problem="something went wrong here; it was logged")
            raise
        finally:
            for task in (alive, computing):
                task.cancel()
            await asyncio.gather(alive, computing, return_exceptions=True)

    def _over(self, simulation_id: str, task: "asyncio.Task[None]") -> None:
        self._running.pop(simulation_id, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("simulation_failed", simulation_id=simulation_id, fault=describe(fault))

    async def _compute(self, asked: Asked, progress: Any) -> dict[str, Any]:
        async with self._alone:
            return await simulate(self._database, self._parts, self._settings, asked, progress)

    async def _signs_of_life(self, simulation_id: str, place: list[int]) -> None:
        """Until it is called off."""
        while True:
            await asyncio.sleep(SIGN_S)
            try:
                await self._show_life(simulation_id, *place)
            except _CalledOff:
                return

    async def _show_life(self, simulation_id: str, done: int, persons: int) -> None:
        async with self._database.reading() as connection:
            if not await connection.fetchval(SHOW_LIFE, simulation_id, done, persons):
                raise _CalledOff

    async def _finish(
        self, simulation_id: str, state: State, report: dict[str, Any] | None = None, problem: str | None = None
    ) -> None:
        async with self._database.reading() as connection:
            await connection.execute(FINISH, simulation_id, state, report, problem)
