"""What other rules, or another pipeline, would have made of the last days: computed, never stored."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.routing.assignments import inputs
from services.routing.assignments import queries as assignments
from services.routing.assignments.domain import PastLead
from services.routing.deals import queries as deals
from services.routing.deals.stages import Pipeline
from services.routing.parts import Parts
from services.routing.reps.calendar import Calendar
from services.routing.reps.domain import Rep
from services.routing.reps.local_time import MINUTE
from services.routing.reps.queries import active_reps
from services.routing.rules.domain import Rules
from services.routing.rules.memory import Memory
from services.routing.rules.trial import Breach, Trial, compared
from shared.db import agreed_now
from shared.ids import RepId

MOST_LEADS = 200_000
AT_ONCE = 2_000
MOST_LISTED = 1_000
MOST_ANSWERS = 5_000
"""So many answers of reps, the latest of each, tell how fast they answer."""
FEWEST_ANSWERS = 5
"""Whose own answers are fewer is taken to answer as all together do."""
MODEL = [
    "Both run over the same leads that were given to reps, as they and their accounts were seen when they came in.",
    "They begin with today's reps, level books, empty hands.",
    "Leads are offered once, and every offer is taken, so that limits by day, week and month count all of them.",
    "A lead keeps its rep busy for as long as it kept whoever had it; one that is still open, to the end.",
    "An offer is late as often as the rep's latest answers were later than its limit, in their working minutes.",
    f"Offers never answered were later than any; who gave fewer than {FEWEST_ANSWERS} answers is as all together.",
]


async def simulate_rules(parts: Parts, draft: Rules, days: int) -> dict[str, Any]:
    """The leads that came in during the last days, given out once by the active rules and once by the draft.

    Read and worked off page by page, so that memory does not grow with the leads. `MODEL` says what is assumed.
    """
    async with parts.runtime.database.reading() as connection:
        since = await agreed_now(connection, parts.runtime.clock) - timedelta(days=days)
        active = await parts.rules.current(connection)
        reps = await active_reps(connection)
        answers = await assignments.answers_since(
            connection, [rep.rep_id for rep in reps], since, max(MOST_ANSWERS // max(len(reps), 1), FEWEST_ANSWERS)
        )
    memory = Memory()
    breach = likely_late(reps, answers)
    before, after = Trial(active, reps, breach, memory), Trial(draft, reps, breach, memory)
    leads = changed = moved = 0
    changes: list[dict[str, Any]] = []
    async for page in _pages(parts, since):
        leads += len(page)
        found = await asyncio.to_thread(_changes, page, before, after)
        changed += len(found)
        moved += sum(change["before"]["rep_id"] != change["after"]["rep_id"] for change in found)
        changes += found[: MOST_LISTED - len(changes)]
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


def _changes(page: Sequence[PastLead], before: Trial, after: Trial) -> list[dict[str, Any]]:
    found = []
    for lead in page:
        was, now = before.give_out(lead), after.give_out(lead)
        if was != now:
            found.append(
                {
                    "lead_id": lead.person_id,
                    "assigned_at": lead.assigned_at,
                    "before": was.as_json(),
                    "after": now.as_json(),
                }
            )
    return found


def likely_late(reps: Sequence[Rep], answers: Sequence[tuple[RepId, datetime, datetime | None]]) -> Breach:
    """How likely each rep is to answer later than so many working minutes, by (rep, asked, answered or never)."""
    calendars = {rep.rep_id: rep.calendar for rep in reps}
    taken: dict[RepId, list[float]] = defaultdict(list)
    for rep_id, asked, answered in answers:
        minutes = float("inf") if answered is None else worked_minutes(calendars[rep_id], asked, answered)
        taken[rep_id].append(minutes)
    everybody = [minutes for own in taken.values() for minutes in own]
    known: dict[tuple[RepId, int], float | None] = {}

    def likely(rep_id: RepId, limit: int) -> float | None:
        if (rep_id, limit) not in known:
            own = taken.get(rep_id, [])
            told = own if len(own) >= FEWEST_ANSWERS else everybody
            known[rep_id, limit] = sum(minutes > limit for minutes in told) / len(told) if told else None
        return known[rep_id, limit]

    return likely


def worked_minutes(calendar: Calendar, start: datetime, end: datetime) -> float:
    """The working minutes between two moments."""
    worked = timedelta(0)
    for window in calendar.windows(start):
        if window.start >= end:
            break
        worked += min(window.end, end) - window.start
    return worked / MINUTE


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
