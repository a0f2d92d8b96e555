"""What a decision saw, so that it can be taken again: the lead, the claims on it, the pool, the rules, the clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.routing.assignments.domain import Assignment, Case, Choice, Nobody, Pool, choose
from services.routing.rules.domain import Rules
from shared.ids import RepId


@dataclass(frozen=True, slots=True)
class Record:
    """A choice by the rules as it is kept; `number` is its place among all decisions and entries."""

    number: int
    rep_ids: tuple[RepId, ...]
    previous_owner: RepId | None
    account_owner: RepId | None
    passed_by: frozenset[RepId]
    previous_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A decision, ready to be taken again."""

    assignment: Assignment
    case: Case
    rules: Rules
    pool: Pool


def case_of(assignment: Assignment, record: Record) -> Case:
    """The lead as the decision saw it; the assignment is opened."""
    inputs = {name: value for name, value in (assignment.inputs or {}).items() if name != "now"}
    return Case(
        inputs,
        assignment.assigned_at,
        record.previous_owner,
        record.account_owner,
        record.passed_by,
        record.previous_at,
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """What the rules make of the same scene now, where that is something else."""

    what: str
    was: Any
    now: Any


def taken_again(scene: Scene) -> tuple[Choice | Nobody, list[Difference]]:
    """The decision once more, and what differs."""
    decision = choose(scene.case, scene.rules, scene.pool)
    was, now = _shown(scene.assignment), _outcome(decision, scene.assignment)
    return decision, [Difference(name, was[name], now.get(name)) for name in was if was[name] != now.get(name)]


def _shown(assignment: Assignment) -> dict[str, Any]:
    return {
        "rep_id": assignment.rep_id,
        "queue": assignment.queue,
        "strategy": assignment.strategy,
        "due_at": assignment.due_at,
        "touch_due_at": assignment.touch_due_at,
        "trace": [dict(trial) for trial in assignment.trace],
    }


def _outcome(decision: Choice | Nobody, assignment: Assignment) -> Mapping[str, Any]:
    # What is said of the waiting before the decision stands in the trace too, and is no part of it.
    told_before = [dict(trial) for trial in assignment.trace[: len(assignment.trace) - len(decision.trace)]]
    trace = told_before + [trial.as_json() for trial in decision.trace]
    if isinstance(decision, Nobody):
        return {"trace": trace}
    return {
        "rep_id": decision.rep.rep_id,
        "queue": decision.queue,
        "strategy": decision.strategy,
        "due_at": decision.due_at(assignment.assigned_at),
        "touch_due_at": decision.touch_due_at(assignment.assigned_at),
        "trace": trace,
    }
