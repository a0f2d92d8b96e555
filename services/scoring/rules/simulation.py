"""What other rules would have made of the last days: who would stand otherwise, and who would have been an MQL when.

Nothing is stored of it in the tables of persons. People are taken in slices, so that memory does not grow with their
number, and by several processes when there are many.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from services.scoring.parts import Parts
from services.scoring.rules import queries
from services.scoring.rules.moves import why_moved
from services.scoring.rules.slices import Question, begin_process, tally_in_process, tally_of, trial_of
from services.scoring.rules.tally import Tally
from shared.db import Database
from shared.ids import LeadId
from shared.processes import pool, processes_beside
from shared.settings import Settings

SLICE = 1_000
FEW = 1_000
"""So many people are gone through here; starting processes would take longer."""
MOST_PROCESSES = 4
MOST_HASHES = 2**31

Compute = Callable[[Sequence[LeadId]], Awaitable[Tally]]
Progress = Callable[[int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A document to be tried on the people who were active in the last days; on so many of them, or on all."""

    document: Mapping[str, Any]
    days: int
    sample: int | None = None


async def simulate(
    database: Database, parts: Parts, settings: Settings, asked: Asked, progress: Progress
) -> dict[str, Any]:
    """The report. Tells `progress` how many people are done, and of how many."""
    async with database.reading() as connection:
        now = await parts.present(connection)
        since = now - timedelta(days=asked.days)
        active = await parts.rules.store.active(connection)
        in_all = await queries.active_persons(connection, since)
    share = min(asked.sample / in_all, 1.0) if asked.sample and in_all else 1.0
    question = Question(orjson.dumps(asked.document), orjson.dumps(active.document), active.version, asked.days, now)
    trial = trial_of(question)
    tally = Tally()
    expected = round(in_all * share)
    await progress(0, expected)
    async with _computing(database, parts, settings, question, expected) as (compute, at_once):
        pending: set[asyncio.Task[Tally]] = set()
        try:
            async for person_ids in _slices(database, since, share):
                pending.add(asyncio.ensure_future(compute(person_ids)))
                while len(pending) >= at_once:
                    pending = await _merged(tally, pending)
                    await progress(tally.persons, expected)
            while pending:
                pending = await _merged(tally, pending)
                await progress(tally.persons, expected)
        finally:
            for task in pending:
                task.cancel()
    moved = await why_moved(database, parts, trial, tally.moved)
    sampled = {"asked": asked.sample, "taken": tally.persons, "of": in_all} if asked.sample else None
    return {**tally.as_json(trial.window), "moved": moved, "sample": sampled, "compared_with": active.version}


async def _merged(tally: Tally, pending: set["asyncio.Task[Tally]"]) -> set["asyncio.Task[Tally]"]:
    done, rest = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        tally.merge(task.result())
    return rest


async def _slices(database: Database, since: datetime, share: float) -> AsyncIterator[list[LeadId]]:
    """People who were active since a time, in the order of their ids."""
    last = LeadId("")
    while True:
        async with database.reading() as connection:
            page = await queries.active_since(connection, last, since, round(share * MOST_HASHES), SLICE)
        if page:
            yield page
        if len(page) < SLICE:
            return
        last = page[-1]


@asynccontextmanager
async def _computing(
    database: Database, parts: Parts, settings: Settings, question: Question, persons: int
) -> AsyncIterator[tuple[Compute, int]]:
    """What computes a slice, and how many slices it computes at once."""
    processes = processes_beside(MOST_PROCESSES)
    if persons <= FEW or not processes:
        trial = trial_of(question)
        yield lambda person_ids: tally_of(database, parts, trial, person_ids), 1
        return
    loop = asyncio.get_running_loop()
    beside = pool(processes, begin_process, settings)
    try:
        yield (lambda person_ids: loop.run_in_executor(beside, tally_in_process, question, person_ids)), processes * 2
    finally:
        beside.shutdown(wait=False, cancel_futures=True)
