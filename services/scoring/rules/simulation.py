"""What other rules would have made of the last days: who would stand otherwise, and who would have been an MQL when.

Nothing is stored of it in the tables of persons. People are taken in slices, so that memory does not grow with their
number, and by several processes when there are many.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson

from services.scoring.parts import Parts
from services.scoring.rules import queries
from services.scoring.rules.moves import why_moved
from services.scoring.rules.slices import Question, begin_process, tally_in_process, tally_of, trial_of
from services.scoring.rules.tally import Tally
from shared.db import Database
from shared.ids import LeadId
from shared.settings import Settings

SLICE = 1_000
FEW = 1_000
"""So many people are gone through here; starting processes would take longer."""
MOST_PROCESSES = 4
MOST_HASHES = 2**31
MIB = 2**20
EACH_MIB = 160
"""What a process takes: this one, and each beside it."""
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What the container may use in bytes, or the word max; there is no such file outside of one."""

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
    processes = processes_within(memory_limit(), len(os.sched_getaffinity(0)))
    if persons <= FEW or not processes:
        trial = trial_of(question)
        yield lambda person_ids: tally_of(database, parts, trial, person_ids), 1
        return
    loop = asyncio.get_running_loop()
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=begin_process, initargs=(settings,)
    )
    try:
        yield (
            lambda person_ids: asyncio.wrap_future(pool.submit(tally_in_process, question, person_ids), loop=loop),
            processes * 2,
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def memory_limit() -> int | None:
    """How many bytes this container may use; None where there is no limit."""
    try:
        written = MEMORY_LIMIT.read_text().strip()
    except OSError:
        return None
    return int(written) if written.isdecimal() else None


def processes_within(limit: int | None, processors: int) -> int:
    """As many processes as there are processors and as memory holds beside this one, so that none is killed for it."""
    most = min(processors, MOST_PROCESSES)
    return most if limit is None else max(min(limit // (EACH_MIB * MIB) - 1, most), 0)
