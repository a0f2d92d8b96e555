"""One set of rules giving out past leads, one after the other: what it comes to, kept as sums."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from services.routing.assignments.domain import NEVER, Case, Choice, PastLead, Pool, choose
from services.routing.fairness.domain import LEAD, Books, Entry
from services.routing.reps.domain import Rep
from services.routing.rules.answering import Answering
from services.routing.rules.domain import Rules
from services.routing.rules.memory import Values
from shared.ids import LeadId, RepId

MOST_REASONS = 20
NOT_ROUTED = "not routed"
FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What rules make of one lead: a rep, or none and why."""

    rep_id: RepId | None
    queue: str | None
    rule_id: str | None
    reason: str | None = None
    why: str | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, Any]:
        """As it is answered."""
        return {
            "rep_id": self.rep_id,
            "queue": self.queue,
            "rule_id": self.rule_id,
            "reason": self.reason,
            "why": self.why,
        }


@dataclass(slots=True)
class Sums:
    """What a run came to so far; `books` are those of each queue, `furthest` who was how many units off in it."""

    by_rep: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    not_routed: int = 0
    breaches: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    offers_with_limit: int = 0
    furthest: dict[str, tuple[int, RepId]] = field(default_factory=dict)
    books: Mapping[str, Books] = field(default_factory=dict)


class Trial:
    """A run over leads in the order they came in, from level books and empty hands.

    Its memory is bounded by reps, queues and the persons who come back, not by the leads.
    """

    def __init__(self, rules: Rules, reps: Sequence[Rep], answering: Answering) -> None:
        self._rules = rules
        self._pool = Pool(tuple(replace(rep, open_leads=0, last_assigned_at=None) for rep in reps))
        self._answering = answering
        self._limited = any(rep.capacity is not None for rep in reps)
        self._counted_until = NEVER if any(rep.most for rep in reps) else FOREVER
        self._busy: list[tuple[datetime, int, RepId]] = []
        self._numbers = count()
        self._owners: dict[LeadId, tuple[RepId, datetime]] = {}
        self._company_owners: dict[str, RepId] = {}
        self._by_company = any(rule.strategy == "account_owner" for rule in rules.in_order)
        self._sums = Sums()

    def give_out(self, leads: Sequence[PastLead]) -> tuple[list[Outcome], Sums]:
        """What becomes of each of the next leads, and of all so far."""
        outcomes = [self._noted(self._decide(lead)) for lead in leads]
        self._sums.books = self._pool.books
        return outcomes, self._sums

    def _noted(self, outcome: Outcome) -> Outcome:
        if outcome.rep_id is not None:
            self._sums.by_rep[outcome.rep_id] += 1
            self._sums.by_rule[outcome.rule_id or ""] += 1
        elif outcome.reason == NOT_ROUTED:
            self._sums.not_routed += 1
        else:
            self._sums.held[outcome.reason or ""] += 1
        return outcome

    def _decide(self, lead: PastLead) -> Outcome:
        case = self._case(lead)
        routed = self._pool.memory.holds(self._rules.route_when, Values(case.values()))[0]
        if not routed:
            return Outcome(None, None, None, NOT_ROUTED)
        self._release(lead.assigned_at)
        self._begin_periods(lead.assigned_at)
        decision = choose(case, self._rules, self._pool)
        if not isinstance(decision, Choice):
            return Outcome(None, None, None, decision.reason, decision.trace[-1].why)
        self._note(decision, lead)
        last = decision.trace[-1]
        return Outcome(decision.rep.rep_id, decision.queue, last.rule_id, None, last.why)

    def _case(self, lead: PastLead) -> Case:
        previous_owner, previous_at = self._owners.get(lead.person_id, (None, None))
        return Case(
            inputs={name: value for name, value in (lead.inputs or {}).items() if name != "now"},
            at=lead.assigned_at,
            previous_owner=previous_owner,
            previous_at=previous_at,
            account_owner=self._company_owners.get(lead.company) if lead.company else None,
        )

    def _release(self, at: datetime) -> None:
        """Leads that were done by then burden their reps no more."""
        while self._busy and self._busy[0][0] <= at:
            _, _, rep_id = heapq.heappop(self._busy)
            self._pool = self._pool.relieved(rep_id)

    def _begin_periods(self, at: datetime) -> None:
        """Limits by day, week and month begin anew; looked at when the first period that is counted is over."""
        if at >= self._counted_until:
            self._pool = self._pool.counting(at)
            self._counted_until = min(cap.period.end for rep in self._pool.reps for cap in rep.caps)

    def _note(self, choice: Choice, lead: PastLead) -> None:
        rep_id = choice.rep.rep_id
        self._pool = self._pool.after(choice, lead.assigned_at)
        if self._limited and lead.done_at is not None:
            heapq.heappush(self._busy, (lead.done_at, next(self._numbers), rep_id))
        if lead.returns:
            self._owners[lead.person_id] = rep_id, lead.done_at or lead.assigned_at
        if lead.company and self._by_company:
            self._company_owners[lead.company] = rep_id
        if choice.entries:
            self._note_deviation(choice.queue, choice.entries[-1])
        if choice.sla.accept_minutes is not None:
            self._sums.offers_with_limit += 1
            likely = self._answering.later_than(rep_id, choice.sla.accept_minutes)
            if likely is not None:
                self._sums.breaches[rep_id] += likely

    def _note_deviation(self, queue: str, turn: Entry) -> None:
        books = self._pool.books[queue]
        balances = [abs(books[rep_id].balance) for rep_id, _ in turn.weights]
        most = max(balances)
        furthest = self._sums.furthest
        if queue not in furthest or most > furthest[queue][0]:
            furthest[queue] = (most, turn.weights[balances.index(most)][0])


def compared(before: Sums, after: Sums) -> dict[str, Any]:
    """What two runs over the same leads came to, side by side."""
    sides = {"before": before, "after": after}
    return {
        "leads_by_rep": _counts(before.by_rep, after.by_rep),
        "leads_by_rule": _counts(before.by_rule, after.by_rule),
        "without_rep": {name: side.held.total() + side.not_routed for name, side in sides.items()},
        "not_routed": {name: side.not_routed for name, side in sides.items()},
        "held": {
            name: {"leads": side.held.total(), "reasons": dict(side.held.most_common(MOST_REASONS))}
            for name, side in sides.items()
        },
        "sla": {name: _sla(side) for name, side in sides.items()},
        "fairness": {name: _fairness(side) for name, side in sides.items()},
    }


def _counts(before: Counter[str], after: Counter[str]) -> dict[str, dict[str, int]]:
    return {key: {"before": before[key], "after": after[key]} for key in sorted({*before, *after})}


def _sla(side: Sums) -> dict[str, Any]:
    by_rep = {rep_id: round(likely, 3) for rep_id, likely in sorted(side.breaches.items())}
    known = bool(side.breaches) or not side.offers_with_limit
    return {
        "offers_with_limit": side.offers_with_limit,
        "expected_breaches": round(sum(side.breaches.values()), 3) if known else None,
        "by_rep": by_rep,
    }


def _fairness(side: Sums) -> dict[str, Any]:
    return {
        queue: {
            "members": {
                rep_id: {
                    "weight": account.weight,
                    "entitled": round((account.balance + account.received * LEAD) / LEAD, 6),
                    "received": account.received,
                    "balance": round(account.balance / LEAD, 6),
                }
                for rep_id, account in sorted(books.items())
            },
            "greatest_deviation": {
                "rep_id": side.furthest[queue][1],
                "leads": round(side.furthest[queue][0] / LEAD, 6),
            },
        }
        for queue, books in sorted(side.books.items())
        if queue in side.furthest
    }
