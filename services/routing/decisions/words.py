"""A decision in words: why each rep got a lead, or did not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from services.routing.assignments.domain import Case, Choice, Considered, Nobody, Pool, Trial, consider
from services.routing.fairness.domain import LEAD, Account, earned
from services.routing.reps.domain import Rep
from services.routing.rules.domain import RE_ENTRY, Rule, Rules
from services.routing.rules.memory import Values
from shared.ids import RepId


@dataclass(frozen=True, slots=True)
class Step:
    """What one rule meant for a rep."""

    rule_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a rep was chosen or not: in a sentence, and rule by rule as far as they were tried."""

    rep: Rep
    chosen: bool
    why: str
    steps: tuple[Step, ...]


def reasons(case: Case, rules: Rules, pool: Pool, decision: Choice | Nobody) -> list[Reason]:
    """For every rep of the pool, in its order."""
    values = Values(case.placed(rules).values())
    by_id = {rule.rule_id: rule for rule in rules.in_order}
    tried: list[tuple[Trial, Rule | None, Mapping[RepId, Considered]]] = []
    for trial in decision.trace:
        rule = by_id.get(trial.rule_id)
        holds = rule is not None and (rule.when is None or pool.memory.holds(rule.when, values)[0])
        found = consider(rule, case, pool, values) if rule is not None and holds else []
        tried.append((trial, rule if holds else None, {one.rep.rep_id: one for one in found}))
    return [_reason(rep, tried, case, pool, decision) for rep in pool.reps]


def _reason(
    rep: Rep,
    tried: list[tuple[Trial, Rule | None, Mapping[RepId, Considered]]],
    case: Case,
    pool: Pool,
    decision: Choice | Nobody,
) -> Reason:
    chosen = decision.rep if isinstance(decision, Choice) else None
    steps = tuple(
        Step(trial.rule_id, _step(rep, trial, rule, found, case, pool, chosen)) for trial, rule, found in tried
    )
    if chosen is not None and rep.rep_id == chosen.rep_id:
        last = decision.trace[-1]
        return Reason(rep, True, f"rule {last.rule_id} gave it to them: {last.why}", steps)
    decisive = steps[-1] if steps else Step("", "no rule was tried")
    return Reason(rep, False, f"rule {decisive.rule_id}: {decisive.why}", steps)


def _step(  # noqa: PLR0913  # what one rule saw
    rep: Rep,
    trial: Trial,
    rule: Rule | None,
    found: Mapping[RepId, Considered],
    case: Case,
    pool: Pool,
    chosen: Rep | None,
) -> str:
    if trial.rule_id == RE_ENTRY:
        had_it = rep.rep_id == case.previous_owner
        return trial.why if had_it else "another rep had this lead before"
    if rule is None:
        return trial.why
    own = found.get(rep.rep_id)
    if own is None:
        return f"is no member of {rule.queue.queue_id}"
    if own.out is not None:
        return own.out
    if not trial.matched or chosen is None:
        return f"is not the one that {rule.strategy} asks for"
    if rep.rep_id == chosen.rep_id:
        return trial.why
    return _compared(rule, own, found, case, pool, chosen)


def _compared(  # noqa: PLR0913  # two reps, and what they are compared by
    rule: Rule, own: Considered, found: Mapping[RepId, Considered], case: Case, pool: Pool, chosen: Rep
) -> str:
    """Why of two who could have had it the other one did."""
    rep = own.rep
    match rule.strategy:
        case "round_robin":
            owed = _owed(rule, found, pool)
            own_due, their_due = owed[rep.rep_id] / LEAD, owed[chosen.rep_id] / LEAD
            return (
                f"it was {chosen.name}'s turn: with this lead {own_due:.2f} leads were owed to {rep.name} and"
                f" {their_due:.2f} to {chosen.name}, who would have fallen behind first"
            )
        case "least_loaded":
            more = f"held {rep.open_leads} leads, {chosen.name} {chosen.open_leads}"
            return more + _waited(rep.open_leads == chosen.open_leads)
        case "account_owner":
            return f"{chosen.name} has the account"
        case "deal_owner":
            return f"{chosen.name} has the open deal"
        case "previous_owner":
            return f"{chosen.name} had this lead before"
        case "soonest_available":
            opens = rep.calendar.next_working(case.at)
            when = "does not work in sight" if opens is None else f"works from {opens:%Y-%m-%d %H:%M} UTC"
            return f"{when}, {chosen.name} sooner or waiting longer for a lead"
        case "highest_seniority":
            mine, theirs = rep.seniority or 0, chosen.seniority or 0
            return f"has seniority {mine}, {chosen.name} {theirs}" + _waited(mine == theirs)
        case _:
            assert_never(rule.strategy)


def _waited(alike: bool) -> str:
    return ", who has waited longer for a lead" if alike else ""


def _owed(rule: Rule, found: Mapping[RepId, Considered], pool: Pool) -> dict[RepId, int]:
    """What those in the running were owed, their share of this lead included."""
    books = pool.books.get(rule.queue.queue_id, {})
    weights = tuple((one.rep.rep_id, one.weight) for one in found.values() if one.out is None or one.earns)
    level = sum(_balance(books.get(rep_id)) for rep_id, _ in weights)
    return {rep_id: _balance(books.get(rep_id)) + units for rep_id, units in earned(weights, level).items()}


def _balance(account: Account | None) -> int:
    return 0 if account is None else account.balance


def named_first(found: list[Reason]) -> Iterator[Reason]:
    """The chosen rep, then the others."""
    yield from (one for one in found if one.chosen)
    yield from (one for one in found if not one.chosen)
