"""Trials on history as jobs: asked for, followed, called off, and kept for a week."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiokafka.errors import KafkaError

from services.nurture.errors import NoSuchTrial
from services.nurture.parts import Parts
from services.nurture.sequences import queries
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.trying import try_on_history
from shared.db import Tx
from shared.ids import new_id
from shared.jobs import JobFailed, Jobs, Progress, State, told_died

NO_KAFKA = "the facts could not be read: Kafka did not answer; ask again"
LONGEST = timedelta(minutes=30)


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
        self._jobs = Jobs(parts.runtime.database, "sequence_trial_failed", queries.SHOW_LIFE, queries.FINISH_TRIAL)

    async def ask(self, tx: Tx, draft: Plan, version: int | None, document: dict[str, Any], days: int, by: str) -> str:  # noqa: PLR0913  # a row
        """Note a trial; it runs once `start` is called, after the commit."""
        trial_id = new_id()
        await tx.connection.execute(queries.ASK_TRIAL, trial_id, draft.sequence_id, version, document, days, by)
        return trial_id

    def start(self, trial_id: str, draft: Plan, serving: Plan | None, days: int) -> None:
        """Run it, unless it runs."""

        async def compute(progress: Progress) -> dict[str, Any]:
            try:
                async with asyncio.timeout(LONGEST.total_seconds()):
                    return await try_on_history(self._parts, draft, serving, days, progress)
            except (KafkaError, TimeoutError) as exc:
                raise JobFailed(NO_KAFKA) from exc

        self._jobs.start(trial_id, compute, 0)

    async def finished(self, sequence_id: str, trial_id: str, within: timedelta) -> Trial:
        """The trial, as soon as it is over, or as it stands after a while."""
        await self._jobs.wait(trial_id, within)
        return await self.get(sequence_id, trial_id)

    async def get(self, sequence_id: str, trial_id: str) -> Trial:
        """A trial as it stands. Raises NoSuchTrial."""
        async with self._parts.runtime.database.reading() as connection:
            row = await connection.fetchrow(queries.LOAD_TRIAL, sequence_id, trial_id)
        if row is None:
            raise NoSuchTrial("there is no such simulation; they are kept for a week")
        return Trial(**told_died(dict(row)))

    async def call_off(self, sequence_id: str, trial_id: str) -> Trial:
        """End a trial, wherever it runs; one that is over stays as it is. Raises NoSuchTrial."""
        await self.get(sequence_id, trial_id)
        await self._jobs.finish(trial_id, "cancelled")
        return await self.get(sequence_id, trial_id)
