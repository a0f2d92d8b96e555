"""Simulations as jobs: asked for, followed, called off, and kept for a week."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.scoring.parts import Parts
from services.scoring.rules.queries import ASK, FINISH, LOAD, SHOW_LIFE
from services.scoring.rules.simulation import Asked, simulate
from shared.db import Connection, Database
from shared.errors import NotFound
from shared.ids import new_id
from shared.jobs import Jobs, Progress, State, told_died
from shared.settings import Settings


class NoSuchSimulation(NotFound):
    """There is no such simulation, or not any more."""

    slug = "scoring/no-such-simulation"
    title = "There is no such simulation"


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
        self._jobs = Jobs(database, "simulation_failed", SHOW_LIFE, FINISH)

    async def ask(self, connection: Connection, asked: Asked, version: int | None, author: str) -> str:
        """Note a simulation; it runs once `start` is called, after the commit."""
        simulation_id = new_id()
        document = dict(asked.document)
        await connection.execute(ASK, simulation_id, version, document, asked.days, asked.sample, author)
        return simulation_id

    def start(self, simulation_id: str, asked: Asked) -> None:
        """Run it, unless it runs."""

        async def compute(progress: Progress) -> dict[str, Any]:
            return await simulate(self._database, self._parts, self._settings, asked, progress)

        self._jobs.start(simulation_id, compute, 0, 0)

    async def finished(self, simulation_id: str, within: timedelta) -> Simulation:
        """The simulation, as soon as it is over, or as it stands after a while."""
        await self._jobs.wait(simulation_id, within)
        return await self.get(simulation_id)

    async def get(self, simulation_id: str) -> Simulation:
        """A simulation as it stands. Raises NoSuchSimulation."""
        async with self._database.reading() as connection:
            row = await connection.fetchrow(LOAD, simulation_id)
        if row is None:
            raise NoSuchSimulation("there is no such simulation; they are kept for a week")
        return Simulation(**told_died(dict(row)))

    async def call_off(self, simulation_id: str) -> Simulation:
        """End a simulation, wherever it runs; one that is over stays as it is. Raises NoSuchSimulation."""
        await self._jobs.finish(simulation_id, "cancelled")
        return await self.get(simulation_id)
