"""What messages of a sequence came to, added up by step and variant. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.nurture.tracking.domain import CLICKS

Key = tuple[str, str | None]
"""A step, and the variant of the experiment at it."""
NEVER_LEFT = frozenset({"failed", "suppressed"})
_RESPONSES: dict[str, str] = {
    "email_opened": "opened",
    **dict.fromkeys(CLICKS.values(), "clicked"),
    "unsubscribed": "unsubscribed",
}
RESPONSES = _RESPONSES | {f"{kind}_raw": f"{name}_raw" for kind, name in _RESPONSES.items()}


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
        if (response := RESPONSES.get(row["name"])) is not None:
            of(row).counts[response] += row["times"]
            continue
        if row["name"] not in NEVER_LEFT:
            of(row).counts["sent"] += row["times"]
        if row["name"] != "sent":
            of(row).counts[row["name"]] += row["times"]
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
