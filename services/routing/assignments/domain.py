"""Which rep gets a lead, and why: pure, so that the same inputs always choose the same rep."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal, assert_never

from services.routing.assignments.turns import next_turn
from services.routing.reps.domain import Rep
from services.routing.rules.document import Strategy
from services.routing.rules.domain import BY_HAND, RE_ENTRY, Rule, Rules, Sla
from shared.events import Stage
from shared.ids import AssignmentId, EventId, LeadId, RepId
from shared.rules import Evaluation, Expression

State = Literal["offered", "accepted", "rejected", "expired"]
GIVEN_BY_HAND = "by_hand"
MOST_OFFERS = 5
"""So many reps are asked about a lead that came in; after that a person has to look at it."""
NEVER = datetime.min.replace(tzinfo=UTC)
DONE: frozenset[Stage] = frozenset({"customer", "disqualified", "recycled"})
"""Stages at which the work of the rep who accepted is over, so that the lead no longer counts as held."""
WORKED_ON: frozenset[Stage] = frozenset({"opportunity"})
"""Stages that a lead comes back from without having left its rep."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A rule that was tried: of a decision's trials exactly the one that placed the lead has `matched`."""

    rule_id: str
    matched: bool
    why: str

    def as_json(self) -> dict[str, Any]:
        """As it stands in a trace."""
        return {"rule_id": self.rule_id, "matched": self.matched, "why": self.why}


@dataclass(frozen=True, slots=True)
class Pool:
    """The active reps, in the order that breaks ties, and their credits by queue."""

    reps: tuple[Rep, ...]
    credits: Mapping[str, Mapping[RepId, Fraction]] = field(default_factory=dict)

    def rep(self, rep_id: RepId | None) -> Rep | None:
        """The rep with this id, if active."""
        return next((rep for rep in self.reps if rep.rep_id == rep_id), None)

    def after(self, choice: "Choice", at: datetime) -> "Pool":
        """The pool when the chosen rep has one more lead."""
        chosen = replace(choice.rep, open_leads=choice.rep.open_leads + 1, last_assigned_at=at)
        reps = tuple(chosen if rep.rep_id == chosen.rep_id else rep for rep in self.reps)
        queue = {**self.credits.get(choice.queue, {}), **choice.credits}
        return Pool(reps, {**self.credits, choice.queue: queue})


@dataclass(frozen=True, slots=True)
class Case:
    """A lead to be given to a rep.

    `inputs` are what rules see: `lead`, `score`, `stage`, `deal`, as far as they are known, and `account_owners`, whose
    the account is and those above it. `previous_owner` had it before, `account_owner` has the latest lead of its
    company; `passed_by` are those who gave it back or let it lapse since it came in.
    """

    inputs: Mapping[str, Any]
    at: datetime
    previous_owner: RepId | None = None
    account_owner: RepId | None = None
    passed_by: frozenset[RepId] = frozenset()

    def values(self) -> dict[str, Any]:
        """The variables of rules."""
        return {"lead": {}, **self.inputs, "now": self.at}


@dataclass(frozen=True, slots=True)
class Choice:
    """A rep for a lead, with the credits that the turn changes."""

    rep: Rep
    queue: str
    strategy: str
    sla: Sla
    trace: tuple[Trial, ...]
    credits: Mapping[RepId, Fraction] = field(default_factory=dict)

    def due_at(self, at: datetime) -> datetime | None:
        """Until when the rep has to accept."""
        return _after(self.rep, at, self.sla.accept_minutes)

    def touch_due_at(self, at: datetime) -> datetime | None:
        """Until when the rep has to get in touch."""
        return _after(self.rep, at, self.sla.touch_minutes)


@dataclass(frozen=True, slots=True)
class Nobody:
    """No rep for a lead: why, and when the first of those on leave is back."""

    reason: str
    trace: tuple[Trial, ...]
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A rep made responsible for a lead.

    It is the person's current one until `ended_at`; `lead_id` is the id it was made with, `person_id` who that is now.
    `cause_id` is the fact that it follows from, `entry_id` the one that brought the lead in: offers after a refusal
    share the entry of the first. `inputs` are the values the rules saw; as it is stored, what is personal of them is in
    the block `sealed`, by the key of `sealed_for`.
    """

    assignment_id: AssignmentId
    lead_id: LeadId
    person_id: LeadId
    revision: int
    rep_id: RepId
    queue: str
    strategy: str
    state: State
    assigned_at: datetime
    due_at: datetime | None
    touch_due_at: datetime | None
    rules_version: int
    trace: Sequence[Mapping[str, Any]]
    cause_id: EventId | None
    entry_id: EventId | None
    reason: str | None = None
    settled_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    inputs: Mapping[str, Any] | None = None
    company: str | None = None
    sealed: str | None = None
    sealed_for: LeadId | None = None

    @property
    def is_current(self) -> bool:
        """Whether the rep is responsible now."""
        return self.ended_at is None


def choose(case: Case, rules: Rules, pool: Pool) -> Choice | Nobody:
    """The rep that the rules give a lead to. A lead that comes back goes to its rep first."""
    evaluation = Evaluation(case.values())
    trace: list[Trial] = []
    if case.previous_owner is not None:
        trace.append(_try_previous_owner(case, pool))
        if trace[-1].matched and (rep := pool.rep(case.previous_owner)) is not None:
            return Choice(rep, RE_ENTRY, "previous_owner", _sla_of(rules, evaluation), tuple(trace))
    absences: Counter[str] = Counter()
    for rule in rules.in_order:
        holds, why = (True, "takes every lead") if rule.when is None else rule.when.holds(evaluation)
        if not holds:
            trace.append(Trial(rule.rule_id, False, f"its condition does not hold: {why}"))
            continue
        candidates, absences = _candidates(rule, case, pool)
        found = _order(rule.strategy, candidates, case, pool.credits.get(rule.queue.queue_id, {}))
        if found is not None:
            rep, reason, credits = found
            trace.append(Trial(rule.rule_id, True, reason))
            return Choice(rep, rule.queue.queue_id, rule.strategy, rule.sla, tuple(trace), credits)
        trace.append(Trial(rule.rule_id, False, _found_nobody(rule, candidates, absences)))
    return Nobody(_hold_reason(pool, absences), tuple(trace), _first_back(case, pool))


def by_hand(rep: Rep, queue: str, reason: str, rules: Rules, case: Case) -> Choice:
    """What a person decided, in the form of what rules decide."""
    sla = _sla_of(rules, Evaluation(case.values()))
    return Choice(rep, queue, GIVEN_BY_HAND, sla, (Trial(BY_HAND, True, reason),))


def one_owner(current: Sequence[Assignment]) -> Assignment:
    """Which of the current assignments of people who turned out to be one goes on.

    An accepted one before an offered one, then the one made first: whoever has known the person longest. A total
    order, so that the result does not depend on the order of merges.
    """
    return min(current, key=lambda one: (one.state != "accepted", one.assigned_at, one.assignment_id))


def wants_rep(current: Assignment | None, previous: Stage | None, *, routed_before: bool) -> bool:
    """Whether a lead that entered a stage at which leads are routed is to be given to a rep now.

    One that has a current assignment is not, unless its rep accepted it and it had left since: then it comes back.
    One that was given by hand stays where it is.
    """
    if current is None:
        return True
    left = not routed_before and previous is not None and previous not in WORKED_ON
    return left and current.state == "accepted" and current.strategy != GIVEN_BY_HAND


def _after(rep: Rep, at: datetime, minutes: int | None) -> datetime | None:
    return None if minutes is None else rep.calendar.after_working(at, minutes)


def _try_previous_owner(case: Case, pool: Pool) -> Trial:
    rep = pool.rep(case.previous_owner)
    if rep is None:
        return Trial(RE_ENTRY, False, "the rep who had this lead is deactivated")
    if rep.rep_id in case.passed_by:
        return Trial(RE_ENTRY, False, "the rep who had this lead passed it by")
    if rep.calendar.on_leave(case.at):
        return Trial(RE_ENTRY, False, "the rep who had this lead is on leave")
    return Trial(RE_ENTRY, True, "had this lead before")


def _sla_of(rules: Rules, evaluation: Evaluation) -> Sla:
    """The limits of the first rule whose condition holds."""
    return next(rule.sla for rule in rules.in_order if rule.when is None or rule.when.holds(evaluation)[0])


def _candidates(rule: Rule, case: Case, pool: Pool) -> tuple[list[tuple[Rep, int]], Counter[str]]:
    """The reps a rule may choose from, with their weights, and why others may not be chosen."""
    candidates: list[tuple[Rep, int]] = []
    absences: Counter[str] = Counter()
    values = case.values()
    for rep in pool.reps:
        weight = rep.weight
        if rule.queue.members is not None:
            if rep.rep_id not in rule.queue.members:
                continue
            own = rule.queue.members[rep.rep_id]
            weight = weight if own is None else own
        absence = _absence(rule, rep, weight, case, values)
        if absence is None:
            candidates.append((rep, weight))
        else:
            absences[absence] += 1
    return candidates, absences


def _absence(rule: Rule, rep: Rep, weight: int, case: Case, values: Mapping[str, Any]) -> str | None:
    if rep.rep_id in case.passed_by:
        return "passed it by"
    if (reason := rep.cannot_take(case.at)) is not None:
        return reason
    if rule.strategy == "round_robin" and weight == 0:
        return "of weight 0"
    if rule.available and not rep.calendar.works_at(case.at):
        return "outside working hours"
    for expression in (rule.queue.who, rule.who):
        if expression is not None and not _fits(expression, rep, values):
            return "not fitting `who`"
    return None


def _fits(expression: Expression, rep: Rep, values: Mapping[str, Any]) -> bool:
    # Making an evaluation costs more than using it, and most conditions read two fields.
    read = {path[0] for path in expression.references}
    given = {name: value for name, value in {**values, "rep": rep.values()}.items() if name in read}
    return expression.holds(given)[0]


def _order(
    strategy: Strategy, candidates: Sequence[tuple[Rep, int]], case: Case, credits: Mapping[RepId, Fraction]
) -> tuple[Rep, str, Mapping[RepId, Fraction]] | None:
    """The rep that a strategy puts first, and why; None when it finds none among the candidates."""
    reps = [rep for rep, _ in candidates]
    among = f"among {len(reps)}"
    if not reps:
        return None
    match strategy:
        case "round_robin":
            turn = next_turn([(rep.rep_id, weight) for rep, weight in candidates], credits)
            return _by_id(reps, turn.rep_id), f"next in turn {among}", turn.credits
        case "least_loaded":
            rep = min(reps, key=lambda rep: (rep.open_leads, rep.last_assigned_at or NEVER))
            return rep, f"holds the fewest leads, {rep.open_leads}, {among}", {}
        case "account_owner":
            owner = _account_owner(reps, case.inputs.get("account_owners", ()))
            return owner or _owner(reps, case.account_owner, "has the latest lead of the same company")
        case "previous_owner":
            return _owner(reps, case.previous_owner, "had this lead before")
        case "soonest_available":
            return _soonest(reps, case.at, among)
        case "highest_seniority":
            rep = min(reps, key=lambda rep: (-_seniority(rep), rep.last_assigned_at or NEVER))
            return rep, f"the most senior, {_seniority(rep)}, {among}", {}
        case _:
            assert_never(strategy)


def _by_id(reps: Sequence[Rep], rep_id: RepId) -> Rep:
    return next(rep for rep in reps if rep.rep_id == rep_id)


def _seniority(rep: Rep) -> int:
    return rep.seniority if rep.seniority is not None else 0


def _owner(reps: Sequence[Rep], owner: RepId | None, why: str) -> tuple[Rep, str, Mapping[RepId, Fraction]] | None:
    found = next((rep for rep in reps if rep.rep_id == owner), None)
    return None if found is None else (found, why, {})


def _account_owner(
    reps: Sequence[Rep], owners: Sequence[Mapping[str, Any]]
) -> tuple[Rep, str, Mapping[RepId, Fraction]] | None:
    """The owner of the lead's account, else of the nearest one above it, who is among the candidates."""
    for owner in owners:
        named = str(owner["owner_id"]).strip().casefold()
        rep = next((rep for rep in reps if named in (rep.rep_id.casefold(), rep.email.casefold())), None)
        if rep is not None:
            up = owner["levels_up"]
            whose = "the lead's account" if up == 0 else f"{up} above the lead's account"
            return rep, f"owns {owner['account_id']}, {whose}", {}
    return None


def _soonest(reps: Sequence[Rep], at: datetime, among: str) -> tuple[Rep, str, Mapping[RepId, Fraction]] | None:
    times = [
        (opens, rep.last_assigned_at or NEVER, index)
        for index, rep in enumerate(reps)
        if (opens := rep.calendar.next_working(at)) is not None
    ]
    if not times:
        return None
    opens, _, index = min(times)
    when = "now" if opens == at else f"from {opens:%Y-%m-%d %H:%M} UTC"
    return reps[index], f"works {when}, the soonest {among}", {}


def _found_nobody(rule: Rule, candidates: Sequence[tuple[Rep, int]], absences: Counter[str]) -> str:
    if candidates:
        return f"its condition holds, but none of {len(candidates)} is the one that {rule.strategy} asks for"
    return f"its condition holds, but nobody is left in {rule.queue.queue_id}: {_listed(absences)}"


def _hold_reason(pool: Pool, absences: Counter[str]) -> str:
    if not pool.reps:
        return "there are no active reps"
    return f"nobody can take it: {_listed(absences)}"


def _listed(absences: Counter[str]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(absences.items())) or "it has no members"


def _first_back(case: Case, pool: Pool) -> datetime | None:
    away = [rep.calendar for rep in pool.reps if rep.calendar.on_leave(case.at)]
    return min((calendar.back_from_leave(case.at) for calendar in away), default=None)
