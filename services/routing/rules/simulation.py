"""What other rules, or another pipeline, would have made of the last days: computed, never stored."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from services.routing.assignments import inputs
from services.routing.assignments import queries as assignments
from services.routing.assignments.domain import Assignment, Case, Choice, Pool, choose
from services.routing.deals import queries as deals
from services.routing.deals.pipeline import Pipeline
from services.routing.parts import Parts
from services.routing.reps.domain import Rep
from services.routing.reps.queries import active_reps
from services.routing.rules.domain import Rules
from shared.ids import LeadId, RepId

MOST_LEADS = 20_000
MOST_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What rules make of one lead: a rep, or none and why."""

    rep_id: RepId | None
    queue: str | None
    rule_id: str | None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As it is answered."""
        return {"rep_id": self.rep_id, "queue": self.queue, "rule_id": self.rule_id, "reason": self.reason}


async def simulate_rules(parts: Parts, draft: Rules, days: int) -> dict[str, Any]:
    """The leads that came in during the last days, given out once by the active rules and once by the draft.

    Both start from today's active reps with empty hands and level books, so that what differs is the rules' doing.
    Capacity is not counted, since nobody knows when a lead would have been done. Leads are seen as they were decided.
    """
    since = parts.runtime.clock.now() - timedelta(days=days)
    async with parts.runtime.database.reading() as connection:
        active = await parts.rules.current(connection)
        reps = tuple(_fresh(rep) for rep in await active_reps(connection))
        stored = await assignments.made_since(connection, since, MOST_LEADS)
        leads = await inputs.opened(connection, parts.runtime.keys, stored)
    before = await asyncio.to_thread(outcomes, active, reps, leads)
    after = await asyncio.to_thread(outcomes, draft, reps, leads)
    changes = [
        {"lead_id": lead.person_id, "assigned_at": lead.assigned_at, "before": b.as_json(), "after": a.as_json()}
        for lead, b, a in zip(leads, before, after, strict=True)
        if b != a
    ]
    return {
        "leads": len(leads),
        "changed": len(changes),
        "changes": changes[:MOST_LISTED],
        "leads_by_rep": _compared(before, after, "rep_id"),
        "leads_by_rule": _compared(before, after, "rule_id"),
        "without_rep": {"before": _without_rep(before), "after": _without_rep(after)},
    }


def outcomes(rules: Rules, reps: Sequence[Rep], leads: Sequence[Assignment]) -> list[Outcome]:
    """What rules make of leads, one after the other."""
    pool = Pool(tuple(reps))
    owners: dict[LeadId, RepId] = {}
    company_owners: dict[str, RepId] = {}
    made: list[Outcome] = []
    for lead in leads:
        case = Case(
            inputs=_inputs(lead),
            at=lead.assigned_at,
            previous_owner=owners.get(lead.person_id),
            account_owner=company_owners.get(lead.company) if lead.company else None,
        )
        if not rules.route_when.holds(case.values())[0]:
            made.append(Outcome(None, None, None, "not routed"))
            continue
        decision = choose(case, rules, pool)
        if isinstance(decision, Choice):
            pool = pool.after(decision, lead.assigned_at)
            owners[lead.person_id] = decision.rep.rep_id
            if lead.company:
                company_owners[lead.company] = decision.rep.rep_id
            made.append(Outcome(decision.rep.rep_id, decision.queue, decision.trace[-1].rule_id))
        else:
            made.append(Outcome(None, None, None, decision.reason))
    return made


async def simulate_pipeline(parts: Parts, draft: Pipeline, days: int) -> dict[str, Any]:
    """What another pipeline makes of the open deals that changed during the last days: their weighted value."""
    since = parts.runtime.clock.now() - timedelta(days=days)
    async with parts.runtime.database.reading() as connection:
        rows = await deals.open_by_stage(connection, since)
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


def _fresh(rep: Rep) -> Rep:
    return replace(rep, open_leads=0, capacity=None, last_assigned_at=None)


def _inputs(lead: Assignment) -> dict[str, Any]:
    return {name: value for name, value in (lead.inputs or {}).items() if name != "now"}


def _compared(before: Sequence[Outcome], after: Sequence[Outcome], name: str) -> dict[str, dict[str, int]]:
    counts = [Counter(getattr(outcome, name) for outcome in made) for made in (before, after)]
    keys = sorted((set(counts[0]) | set(counts[1])) - {None})
    return {key: {"before": counts[0][key], "after": counts[1][key]} for key in keys}


def _without_rep(made: Sequence[Outcome]) -> int:
    return sum(outcome.rep_id is None for outcome in made)
