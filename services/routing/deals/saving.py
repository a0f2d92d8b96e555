"""Writes what became of a deal, and tells it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.routing.deals import queries
from services.routing.deals.changes import Written
from services.routing.deals.domain import Deal, conversion_of, deal_changed
from services.routing.deals.sealing import WRITTEN, sealed
from services.routing.deals.stages import Pipeline
from services.routing.deals.story import Entry, Step, same_way, steps_of
from services.routing.parts import Parts
from services.routing.reps.queries import teams_of
from shared.db import Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.telemetry import counter

CLOSED = counter("throughline_routing_deals_closed_total", "Deals that ended: does revenue come in", ["status"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What changes make of a deal: how it stood and stands, its steps, and what was told of it."""

    before: Deal | None
    after: Deal
    steps_before: Sequence[Step]
    steps: Sequence[Step]
    told: Sequence[Entry]

    @property
    def changed(self) -> bool:
        """Whether anything is another than it was."""
        return self.before is None or not same_way(self.steps, self.steps_before)


def outcome_of(known: Deal, entries: Sequence[Entry], told: Sequence[Entry], written: Written) -> Outcome:
    """What changes make of a deal known by these entries. Raises Invalid for dates that contradict each other."""
    before = steps_of(known, entries)
    steps = steps_of(known, [*entries, *told])
    after = written.on(steps[-1].deal, told[-1].number if told else known.revision)
    _refuse_contract(after)
    return Outcome(known, after, before, steps, told)


def opening_outcome(blank: Deal, told: Sequence[Entry]) -> Outcome:
    """What the first changes make of a new deal. Raises Invalid."""
    steps = steps_of(blank, told)
    _refuse_contract(steps[-1].deal)
    return Outcome(None, steps[-1].deal, (), steps, told)


async def save(
    tx: Tx, parts: Parts, outcome: Outcome, pipeline: Pipeline, *, mark: dict[str, str] | None = None
) -> Deal | None:
    """Store an outcome and tell it: the last step where it was added to what was told, else the deal from its opening.

    Answers the deal as it stands; None when it was to be new and is there already.
    """
    now = await agreed_now(tx.connection, parts.runtime.clock)
    begins, steps = _untold(outcome)
    known = outcome.before.revision if outcome.before is not None else 0
    told_last = outcome.told[-1].number if outcome.told else 0
    first = max(known, told_last - len(steps)) + 1  # what is told next is numbered after all that was told
    after = replace(outcome.after, revision=first + len(steps) - 1, sealed=None)
    stored = await sealed(tx.connection, parts.runtime.keys, after)
    if outcome.before is None:
        if not await queries.insert_deal(tx.connection, stored, mark):
            return None
    else:
        await queries.update_deal(tx.connection, stored)
    await queries.add_history(tx.connection, stored, outcome.told)
    teams = await teams_of(tx.connection, after.rep_id)
    texts = {name: getattr(stored, name) for name in (*WRITTEN, "sealed")}
    for revision, step in enumerate(steps, start=first):
        deal = replace(step.deal, revision=revision, **texts)
        tx.emit(deal_changed(deal, pipeline, teams, now, begins=first if begins else 0))
    conversion = conversion_of(outcome.before, after, now)
    if conversion is not None:
        tx.emit(conversion)
    _count(outcome.before, after)
    return after


async def keep(tx: Tx, deal: Deal, told: Entry) -> Deal:
    """Keep a change that changes nothing yet: it does once something else is told of the time before it."""
    if not told.change.model_fields_set:
        return deal
    await queries.add_history(tx.connection, deal, [told])
    await queries.number_deal(tx.connection, deal.deal_id, told.number)
    return replace(deal, revision=told.number)


def _untold(outcome: Outcome) -> tuple[bool, Sequence[Step]]:
    """Whether the deal is told anew, and the steps that are to be told."""
    if outcome.before is not None and same_way(outcome.steps[:-1], outcome.steps_before):
        return False, outcome.steps[-1:]
    return outcome.before is not None, outcome.steps


def _refuse_contract(deal: Deal) -> None:
    starts, ends = deal.contract_starts_on, deal.contract_ends_on
    if starts is not None and ends is not None and ends < starts:
        detail = f"lies before contract_starts_on, {starts.isoformat()}"
        raise Invalid("look at /contract_ends_on", [FieldError("/contract_ends_on", detail)])


def _count(before: Deal | None, after: Deal) -> None:
    if after.status != "open" and (before is None or before.status != after.status):
        CLOSED.labels(after.status).inc()
