"""What messages of a sequence came to, added up by step and variant. Pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.nurture.tracking.domain import CLICKS
from shared.ids import LeadId

Key = tuple[str, str | None]
"""A step, and the variant of the experiment at it."""
NEVER_LEFT = frozenset({"failed", "suppressed"})
_RESPONSES: dict[str, str] = {
    "email_opened": "opened",
    **dict.fromkeys(CLICKS.values(), "clicked"),
    "unsubscribed": "unsubscribed",
}
RESPONSES = _RESPONSES | {f"{kind}_raw": f"{name}_raw" for kind, name in _RESPONSES.items()}


REVENUE = "revenue "
"""How the name of a count begins that is money, before its currency."""


def is_outcome(name: str) -> bool:
    """Whether a count of this name is of what followed messages, and depends on the window."""
    return name in ("replied", "conversions") or name.startswith(REVENUE)


@dataclass(frozen=True, slots=True)
class Happened:
    """A reply or a conversion: the id that it came with, whose it is, and what it is worth after refunds."""

    kind: str
    fact_id: str
    lead_id: LeadId
    person_id: LeadId
    occurred_at: datetime
    currency: str
    value_minor: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that left."""

    sequence_id: str
    step_id: str
    variant: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fact that followed a message of a sequence, which left `at` (the quarter of an hour)."""

    kind: str
    fact_id: str
    sequence_id: str
    lead_id: str
    at: datetime
    step_id: str
    variant: str
    currency: str
    value_minor: int


def followed(facts: Iterable[Happened], messages: Mapping[LeadId, Sequence[Sent]], window: timedelta) -> set[Outcome]:
    """Each fact under the last message of each sequence before it, if that left within the window."""
    by_sequence: dict[tuple[LeadId, str], list[Sent]] = {}
    for person_id, sent in messages.items():
        for one in sorted(sent, key=lambda one: one.claimed_at):
            by_sequence.setdefault((person_id, one.sequence_id), []).append(one)
    sequences: dict[LeadId, list[str]] = {}
    for person_id, sequence_id in by_sequence:
        sequences.setdefault(person_id, []).append(sequence_id)
    found = set()
    for fact in facts:
        for sequence_id in sequences.get(fact.person_id, ()):
            mine = by_sequence[fact.person_id, sequence_id]
            place = bisect_right(mine, fact.occurred_at, key=lambda one: one.claimed_at)
            if place and mine[place - 1].claimed_at > fact.occurred_at - window:
                found.add(_outcome(fact, mine[place - 1]))
    return found


def counted(outcome: Outcome, sign: int) -> list[dict[str, Any]]:
    """What an outcome adds to the counts of messages, or takes from them, as rows."""
    row = {"step_id": outcome.step_id, "variant": outcome.variant or None}
    names = {outcome.kind: 1, f"{REVENUE}{outcome.currency}": outcome.value_minor}
    return [{**row, "name": name, "times": sign * times} for name, times in names.items() if times]


def _outcome(fact: Happened, last: Sent) -> Outcome:
    at = last.claimed_at.replace(minute=last.claimed_at.minute // 15 * 15, second=0, microsecond=0)
    step = (last.step_id, last.variant)
    return Outcome(fact.kind, fact.fact_id, last.sequence_id, fact.lead_id, at, *step, fact.currency, fact.value_minor)


@dataclass(slots=True)
class Results:
    """Counts of messages, and money in minor units by currency, and by model and currency."""

    counts: Counter[str] = field(default_factory=Counter)
    revenue: Counter[str] = field(default_factory=Counter)
    attributed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: "Results") -> None:
        """Count all of another as well."""
        self.counts.update(other.counts)
        self.revenue.update(other.revenue)
        self.attributed.update(other.attributed)


@dataclass(frozen=True, slots=True)
class Read:
    """What was read about a sequence and a period: rows of the statements of these names."""

    counts: Iterable[Any]
    withdrawn: Iterable[Any]
    replies: Iterable[Any]
    conversions: Iterable[Any]
    credited: Iterable[Any]


def results_of(read: Read) -> dict[Key, Results]:
    """By step and variant. What left counts as sent, however it ended; `unknown` is a part of that."""
    found: dict[Key, Results] = {}

    def of(row: Any) -> Results:
        return found.setdefault((row["step_id"], row["variant"]), Results())

    for row in read.counts:
        _count(of(row), row["name"], row["times"])
    for row in read.withdrawn:
        of(row).counts[RESPONSES[row["name"]]] -= row["times"]
    for row in read.replies:
        of(row).counts["replied"] += row["times"]
    for row in read.conversions:
        of(row).counts["conversions"] += row["times"]
        of(row).revenue[row["currency"]] += row["value_minor"]
    for row in read.credited:
        of(row).attributed[row["model"], row["currency"]] += row["value_minor"]
    return found


def _count(results: Results, name: str, times: int) -> None:
    if name.startswith(REVENUE):
        results.revenue[name.removeprefix(REVENUE)] += times
    elif is_outcome(name):
        results.counts[name] += times
    elif (response := RESPONSES.get(name)) is not None:
        results.counts[response] += times
    else:
        if name not in NEVER_LEFT:
            results.counts["sent"] += times
        if name != "sent":
            results.counts[name] += times


def by_step(found: Mapping[Key, Results]) -> dict[Key, Results]:
    """The same without telling variants apart."""
    steps: dict[Key, Results] = {}
    for (step_id, _), results in found.items():
        steps.setdefault((step_id, None), Results()).add(results)
    return steps


def total_of(found: Iterable[Results]) -> Results:
    """All of it together."""
    total = Results()
    for results in found:
        total.add(results)
    return total
