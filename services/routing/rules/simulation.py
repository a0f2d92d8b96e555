"""What other rules, or another pipeline, would have made of the last days: computed, never stored.

Each of two sets of rules goes through the leads in their order; the two need not wait for each other. Where there are
many leads each has a process of its own, and this one goes on answering; such simulations run one after the other.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.routing.assignments import inputs
from services.routing.assignments import queries as assignments
from services.routing.assignments.domain import PastLead
from services.routing.deals import queries as deals
from services.routing.deals.stages import Pipeline
from services.routing.parts import Parts, rules_of
from services.routing.reps.domain import Rep
from services.routing.reps.queries import active_reps
from services.routing.rules.answering import FEWEST_ANSWERS, Answering, answering
from services.routing.rules.trial import Outcome, Sums, Trial, compared
from shared.db import agreed_now
from shared.errors import QuotaExceeded, Unavailable
from shared.processes import pool, processes_beside

MOST_LEADS = 200_000
AT_ONCE = 2_000
MOST_LISTED = 1_000
PATIENCE = timedelta(seconds=20)
"""So long a simulation waits for the one before it; whoever asked may then ask again."""
MOST_ANSWERS = 5_000
"""So many answers of reps, the latest of each, tell how fast they answer."""

MODEL = [
    "Both run over the same leads that were given to reps, as they and their accounts were seen when they came in.",
    "They begin with today's reps, level books, empty hands.",
    "Leads are offered once, and every offer is taken, so that limits by day, week and month count all of them.",
    "A lead keeps its rep busy for as long as it kept whoever had it; one that is still open, to the end.",
    "An offer is late as often as the rep's latest answers were later than its limit, in their working minutes.",
    f"Offers never answered were later than any; who gave fewer than {FEWEST_ANSWERS} answers is as all together.",
]


@dataclass(frozen=True, slots=True)
class Question:
    """What both sets of rules are tried on: these reps, and how fast they answer."""

    reps: Sequence[Rep]
    answering: Answering

    def trial(self, document: Mapping[str, Any]) -> Trial:
        """A run of one set of rules."""
        return Trial(rules_of(0, dict(document)), self.reps, self.answering)


Side = Callable[[Sequence[PastLead]], Awaitable[tuple[list[Outcome], Sums]]]
"""Gives out the next leads by one set of rules, and tells what all so far came to."""


async def simulate_rules(parts: Parts, turn: asyncio.Lock, document: Mapping[str, Any], days: int) -> dict[str, Any]:
    """The leads that came in during the last days, given out once by the active rules and once by a draft.

    Read and worked off page by page, so that memory does not grow with the leads. `MODEL` says what is assumed. Of many
    leads one simulation runs at a time, by its `turn`. Raises QuotaExceeded where it does not come, Unavailable.
    """
    async with parts.runtime.database.reading() as connection:
        since = await agreed_now(connection, parts.runtime.clock) - timedelta(days=days)
        active = await parts.rules.store.active(connection)
        reps = await active_reps(connection)
        answers = await assignments.answers_since(
            connection, [rep.rep_id for rep in reps], since, max(MOST_ANSWERS // max(len(reps), 1), FEWEST_ANSWERS)
        )
    leads = changed = moved = 0
    changes: list[dict[str, Any]] = []
    before = after = Sums()
    pages = _pages(parts, since)
    page: list[PastLead] = await anext(pages, [])
    following: list[PastLead] = await anext(pages, [])
    question = Question(reps, answering(reps, answers))
    async with AsyncExitStack() as at_the_end:
        if following:
            await at_the_end.enter_async_context(in_turn(turn))
        sides = _sides(question, active.document, document, apart=bool(following) and processes_beside(2) == 2)
        give, give_anew = at_the_end.enter_context(sides)
        while page:
            given = asyncio.gather(give(page), give_anew(page))
            later: list[PastLead] = await anext(pages, [])
            (was, before), (now, after) = await given
            found = [_change(*each) for each in zip(page, was, now, strict=True) if each[1] != each[2]]
            leads += len(page)
            changed += len(found)
            moved += sum(change["before"]["rep_id"] != change["after"]["rep_id"] for change in found)
            changes += found[: MOST_LISTED - len(changes)]
            page, following = following, later
    return {
        "leads": leads,
        "truncated": leads >= MOST_LEADS,
        "changed": changed,
        "with_other_rep": moved,
        "changes": changes,
        **compared(before, after),
        "model": MODEL,
    }


async def _pages(parts: Parts, since: datetime) -> AsyncIterator[list[PastLead]]:
    """The leads since then in the order in which they were given out, opened, some at a time.

    Those of one batch have one time, and numbers that tell who came first: they are kept together.
    """
    place = (since, "")
    begun: list[PastLead] = []
    for _ in range(0, MOST_LEADS, AT_ONCE):
        async with parts.runtime.database.reading() as connection:
            stored = await assignments.made_after(connection, place, AT_ONCE)
            begun += await inputs.opened(connection, parts.runtime.keys, stored)
        if len(stored) < AT_ONCE:
            break
        place = (stored[-1].assigned_at, stored[-1].assignment_id)
        whole = [lead for lead in begun if lead.assigned_at < stored[-1].assigned_at]
        begun = begun[len(whole) :]
        if whole:
            yield _in_order(whole)
    if begun:
        yield _in_order(begun)


def _in_order(leads: Sequence[PastLead]) -> list[PastLead]:
    return sorted(leads, key=lambda lead: (lead.assigned_at, lead.number))


@asynccontextmanager
async def in_turn(turn: asyncio.Lock) -> AsyncIterator[None]:
    """Alone among those that wait for this turn. Raises QuotaExceeded when it does not come soon."""
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await turn.acquire()
    except TimeoutError as exc:
        detail = "another simulation of many leads is under way; ask again when it is done, or for fewer days"
        raise QuotaExceeded(detail, int(PATIENCE.total_seconds())) from exc
    try:
        yield
    finally:
        turn.release()


@contextmanager
def _sides(question: Question, *documents: Mapping[str, Any], apart: bool) -> Iterator[list[Side]]:
    """What gives out leads by each of these rules; `apart`: in a process of its own."""
    if not apart:
        yield [_here(question.trial(document)) for document in documents]
        return
    with ExitStack() as at_the_end:
        pools = [pool(1, _begin, question, document) for document in documents]
        for one in pools:
            at_the_end.callback(one.shutdown, wait=False, cancel_futures=True)
        try:
            yield [_beside(one) for one in pools]
        except BrokenProcessPool as exc:
            detail = "a process that gave out leads ended, perhaps for want of memory: ask again later"
            raise Unavailable(detail) from exc


def _here(trial: Trial) -> Side:
    return lambda leads: asyncio.to_thread(trial.give_out, leads)


def _beside(process: ProcessPoolExecutor) -> Side:
    return lambda leads: asyncio.wrap_future(process.submit(_give_out, leads))


_own: list[Trial] = []


def _begin(question: Question, document: Mapping[str, Any]) -> None:
    _own.append(question.trial(document))


def _give_out(leads: Sequence[PastLead]) -> tuple[list[Outcome], Sums]:
    return _own[0].give_out(leads)


def _change(lead: PastLead, was: Outcome, now: Outcome) -> dict[str, Any]:
    return {
        "lead_id": lead.person_id,
        "assigned_at": lead.assigned_at,
        "before": was.as_json(),
        "after": now.as_json(),
    }


async def simulate_pipeline(parts: Parts, draft: Pipeline, days: int) -> dict[str, Any]:
    """What another pipeline makes of the open deals that changed during the last days: their weighted value."""
    async with parts.runtime.database.reading() as connection:
        since = await agreed_now(connection, parts.runtime.clock) - timedelta(days=days)
        rows = await deals.open_by_stage(connection, draft.pipeline_id, since)
    stages = [
        {
            "stage": row["stage"],
            "currency": row["currency"],
            "deals": row["deals"],
            "value_minor": int(row["value_minor"]),
            "probability_before": row["probability"],
            "probability_after": draft.probabilities.get(row["stage"]),
        }
        for row in rows
    ]
    return {"stages": stages, "deals_without_stage": sum(s["deals"] for s in stages if s["probability_after"] is None)}
