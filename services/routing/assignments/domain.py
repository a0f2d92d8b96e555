"""Which rep gets a lead, and why: pure, so that the same inputs always choose the same rep."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, assert_never

from services.routing.assignments.claims import account_owner, cannot_return, passed_over, return_refused
from services.routing.assignments.words import found_nobody, hold_reason
from services.routing.fairness.domain import CAPS, Books, Entry, folded
from services.routing.fairness.turns import named, next_turn
from services.routing.reps.domain import Rep
from services.routing.rules.domain import BY_HAND, RE_ENTRY, ReEntry, Rule, Rules, Sla
from services.routing.rules.memory import Memory, Values
from shared.ids import AssignmentId, EventId, LeadId, RepId

State = Literal["offered", "accepted", "rejected", "expired"]
GIVEN_BY_HAND = "by_hand"
USUAL_CLAIM = 60
"""Working minutes in which a lead is open to be claimed, where neither queue nor rule says."""
MOST_OFFERS = 5
"""So many reps are asked about a lead that came in; after that a person has to look at it."""
PASSED_BY = "passed it by"
NEVER = datetime.min.replace(tzinfo=UTC)


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
    """The active reps, in the order that breaks ties, and the books of each queue; what was worked out about them."""

    reps: tuple[Rep, ...]
    books: Mapping[str, Books] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory, compare=False)

    def rep(self, rep_id: RepId | None) -> Rep | None:
        """The rep with this id, if active."""
        return next((rep for rep in self.reps if rep.rep_id == rep_id), None)

    def after(self, choice: "Choice", at: datetime) -> "Pool":
        """The pool when the chosen rep has one more lead."""
        return self._with(choice.rep.with_lead(at)).booked(choice.queue, choice.entries)

    def relieved(self, rep_id: RepId) -> "Pool":
        """The pool when a rep has one lead less."""
        rep = self.rep(rep_id)
        return self if rep is None else self._with(replace(rep, open_leads=rep.open_leads - 1))

    def counting(self, at: datetime) -> "Pool":
        """The pool at a moment at which periods of limits may have begun."""
        return Pool(tuple(rep.counting(at) if rep.most else rep for rep in self.reps), self.books, self.memory)

    def _with(self, changed: Rep) -> "Pool":
        reps = tuple([changed if rep.rep_id == changed.rep_id else rep for rep in self.reps])
        return Pool(reps, self.books, self.memory)

    def booked(self, queue: str, entries: Sequence[Entry]) -> "Pool":
        """The pool when entries were written into the books of a queue."""
        if not entries:
            return self
        books = {**self.books, queue: folded(self.books.get(queue, {}), entries)}
        return Pool(self.reps, books, self.memory)


@dataclass(frozen=True, slots=True)
class Case:
    """A lead to be given to a rep.

    `inputs` are what rules see: `lead`, `score`, `stage`, `deal`, as far as they are known, and `account_owners`, whose
    the account is and those above it. `previous_owner` had it before, until `previous_at`; `account_owner` has the
    latest lead of its company; `passed_by` are those who gave it back or let it lapse since it came in.
    """

    inputs: Mapping[str, Any]
    at: datetime
    previous_owner: RepId | None = None
    account_owner: RepId | None = None
    passed_by: frozenset[RepId] = frozenset()
    previous_at: datetime | None = None

    def values(self) -> dict[str, Any]:
        """The variables of rules."""
        return {"lead": {}, "segments": [], **self.inputs, "now": self.at}

    def placed(self, rules: Rules) -> "Case":
        """The case with the lead's territory, by the table of these rules."""
        territory = rules.territories.of(self.inputs.get("lead", {}))
        return self if territory is None else replace(self, inputs={**self.inputs, "territory": territory})


@dataclass(frozen=True, slots=True)
class Choice:
    """A rep for a lead, with what it writes into the books of the queue; in a claim queue also who may claim it."""

    rep: Rep
    queue: str
    strategy: str
    sla: Sla
    trace: tuple[Trial, ...]
    entries: tuple[Entry, ...] = ()
    claimants: tuple[Rep, ...] = ()
    claim_minutes: int = USUAL_CLAIM

    def of_lead(self, assignment_id: AssignmentId, lead_id: LeadId) -> "Choice":
        """The choice, its turn named after what it was for."""
        if not self.entries:
            return self
        return replace(self, entries=named(self.entries, assignment_id, lead_id))

    def due_at(self, at: datetime) -> datetime | None:
        """Until when the rep has to accept."""
        return _after(self.rep, at, self.sla.accept_minutes)

    def touch_due_at(self, at: datetime) -> datetime | None:
        """Until when the rep has to get in touch."""
        return _after(self.rep, at, self.sla.touch_minutes)


@dataclass(frozen=True, slots=True)
class Nobody:
    """No rep for a lead: why, and when the first of those on leave is back, or of those at capacity can take one."""

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
    accepted_at: datetime | None = None
    touched_at: datetime | None = None

    @property
    def is_current(self) -> bool:
        """Whether the rep is responsible now."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class PastLead:
    """A lead as it came in: what the rules saw, and until when a rep was busy with it (None: still).

    `returns` says that the person came in once more after this, `number` who of those with one time came first.
    """

    assignment_id: AssignmentId
    number: int
    lead_id: LeadId
    person_id: LeadId
    assigned_at: datetime
    company: str | None
    inputs: Mapping[str, Any] | None
    sealed: str | None
    sealed_for: LeadId | None
    done_at: datetime | None
    returns: bool


def choose(case: Case, rules: Rules, pool: Pool) -> Choice | Nobody:
    """The rep that the rules give a lead to. A lead that comes back goes to its rep first."""
    case = case.placed(rules)
    values = Values(case.values())
    trace: list[Trial] = []
    if case.previous_owner is not None:
        trace.append(_try_previous_owner(case, rules.re_entry, values, pool))
        if trace[-1].matched and (rep := pool.rep(case.previous_owner)) is not None:
            return Choice(rep, RE_ENTRY, "previous_owner", _sla_of(rules, values), tuple(trace))
    absences: Counter[str] = Counter()
    for rule in rules.in_order:
        holds, why = (True, "takes every lead") if rule.when is None else pool.memory.holds(rule.when, values)
        if not holds:
            trace.append(Trial(rule.rule_id, False, f"its condition does not hold: {why}"))
            continue
        considered = consider(rule, case, pool, values)
        found = _order(rule, considered, case, pool)
        if found is not None:
            rep, reason, entries = found
            if rule.strategy == "account_owner":
                reason += _passed_over(case, considered, rep)
            trace.append(Trial(rule.rule_id, True, reason))
            claimants = tuple(one.rep for one in considered if one.out is None) if rule.queue.claim else ()
            minutes = rule.queue.claim_minutes or rule.sla.accept_minutes or USUAL_CLAIM
            return Choice(rep, rule.queue.queue_id, rule.strategy, rule.sla, tuple(trace), entries, claimants, minutes)
        absences = Counter(one.out for one in considered if one.out is not None)
        why = found_nobody(rule, len(considered) - absences.total(), absences)
        if rule.strategy == "account_owner":
            why += _passed_over(case, considered, None)
        trace.append(Trial(rule.rule_id, False, why))
    return Nobody(hold_reason(pool.reps, absences), tuple(trace), _first_back(case, pool))


def by_hand(rep: Rep, queue: str, reason: str, rules: Rules, case: Case) -> Choice:
    """What a person decided, in the form of what rules decide."""
    sla = _sla_of(rules, Values(case.placed(rules).values()))
    return Choice(rep, queue, GIVEN_BY_HAND, sla, (Trial(BY_HAND, True, reason),))


def _after(rep: Rep, at: datetime, minutes: int | None) -> datetime | None:
    return None if minutes is None else rep.calendar.after_working(at, minutes)


def _try_previous_owner(case: Case, re_entry: ReEntry | None, values: Values, pool: Pool) -> Trial:
    refused = return_refused(re_entry, case.previous_at, case.at, values)
    refused = refused or cannot_return(pool.rep(case.previous_owner), case.passed_by, case.at)
    return Trial(RE_ENTRY, refused is None, refused or "had this lead before")


def _sla_of(rules: Rules, values: Values) -> Sla:
    """The limits of the first rule whose condition holds."""
    return next(rule.sla for rule in rules.in_order if rule.when is None or rule.when.holds(values.evaluation)[0])


class Considered(NamedTuple):
    """A rep whom a rule could give a lead to: with the weight in its queue, and why not this lead (`out`), if not.

    `away` says why no rule could give the rep anything; `earns` that the lead counts as missed for a limit.
    """

    rep: Rep
    rep_id: RepId
    weight: int
    out: str | None
    away: str | None
    earns: bool = False


def consider(rule: Rule, case: Case, pool: Pool, values: Values) -> list[Considered]:
    """The reps of a rule's queue, and which of them cannot have this lead, and why; `values` are the case's."""
    conditions = [each for each in (rule.queue.who, rule.who) if each is not None]
    fitting = [pool.memory.fitting(each, values) for each in conditions]
    takes_turns = rule.strategy == "round_robin"
    members, at, passed_by = rule.queue.members, case.at, case.passed_by

    def unfit(rep: Rep, weight: int) -> str | None:
        """Why this lead is not for a rep who could take one."""
        if takes_turns and weight == 0:
            return "of weight 0"
        if rule.available and not pool.memory.works_at(rep.calendar, at):
            return rep.calendar.why_not(at) or "outside working hours"
        for fits in fitting:
            if not fits(rep):
                return "not fitting `who`"
        return None

    considered: list[Considered] = []
    for rep in pool.reps:
        weight = rep.weight
        if members is not None:
            if rep.rep_id not in members:
                continue
            own = members[rep.rep_id]
            weight = weight if own is None else own
        away = rep.cannot_take(at)
        if rep.rep_id in passed_by:
            considered.append(Considered(rep, rep.rep_id, weight, PASSED_BY, away))
        elif away is None:
            considered.append(Considered(rep, rep.rep_id, weight, unfit(rep, weight), None))
        else:
            earns = rule.queue.makes_up_limits and away in CAPS and unfit(rep, weight) is None
            considered.append(Considered(rep, rep.rep_id, weight, away, away, earns))
    return considered


Found = tuple[Rep, str, tuple[Entry, ...]]
"""A rep, why, and what it writes into the books of the queue."""


def _order(rule: Rule, considered: Sequence[Considered], case: Case, pool: Pool) -> Found | None:
    """The rep that a strategy puts first, and why; None when it finds none among those who can have the lead."""
    reps = [one.rep for one in considered if one.out is None]
    among = f"among {len(reps)}"
    if not reps:
        return None
    match rule.strategy:
        case "round_robin":
            books = pool.books.get(rule.queue.queue_id, {})
            turn = next_turn(considered, books, case.at, monthly=rule.queue.monthly)
            return _by_id(reps, turn.rep_id), f"next in turn {among}", turn.entries
        case "least_loaded":
            rep = min(reps, key=lambda rep: (rep.open_leads, rep.last_assigned_at or NEVER))
            return rep, f"holds the fewest leads, {rep.open_leads}, {among}", ()
        case "account_owner":
            if (owner := account_owner(reps, case.inputs)) is not None:
                return (*owner, ())
            return _owner(reps, case.account_owner, "has the latest lead of the same company")
        case "deal_owner":
            owner_id = case.inputs.get("deal", {}).get("rep_id")
            return _owner(reps, owner_id, "has the open deal with this lead")
        case "previous_owner":
            return _owner(reps, case.previous_owner, "had this lead before")
        case "soonest_available":
            return _soonest(reps, case.at, among)
        case "highest_seniority":
            rep = min(reps, key=lambda rep: (-_seniority(rep), rep.last_assigned_at or NEVER))
            return rep, f"the most senior, {_seniority(rep)}, {among}", ()
        case _:
            assert_never(rule.strategy)


def _by_id(reps: Sequence[Rep], rep_id: RepId) -> Rep:
    return next(rep for rep in reps if rep.rep_id == rep_id)


def _seniority(rep: Rep) -> int:
    return rep.seniority if rep.seniority is not None else 0


def _owner(reps: Sequence[Rep], owner: RepId | None, why: str) -> Found | None:
    found = next((rep for rep in reps if rep.rep_id == owner), None)
    return None if found is None else (found, why, ())


def _passed_over(case: Case, considered: Sequence[Considered], chosen: Rep | None) -> str:
    return passed_over([(one.rep, one.out) for one in considered], case.inputs, chosen)


def _soonest(reps: Sequence[Rep], at: datetime, among: str) -> Found | None:
    times = [
        (opens, rep.last_assigned_at or NEVER, index)
        for index, rep in enumerate(reps)
        if (opens := rep.calendar.next_working(at)) is not None
    ]
    if not times:
        return None
    opens, _, index = min(times)
    when = "now" if opens == at else f"from {opens:%Y-%m-%d %H:%M} UTC"
    return reps[index], f"works {when}, the soonest {among}", ()


def _first_back(case: Case, pool: Pool) -> datetime | None:
    return min((back for rep in pool.reps if (back := rep.free_again_at(case.at)) is not None), default=None)
