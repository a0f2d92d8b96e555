"""The books of a queue: what each member is owed in leads, and every entry that made it so.

Everything is counted in whole units, `LEAD` of them a lead, so that entries add up exactly: a turn shares one lead out
among the members present and takes it from the one who gets it. `Account`s are the entries folded; a balance is what a
member is entitled to minus what they received.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal, NamedTuple, assert_never

from shared.ids import AssignmentId, LeadId, RepId

LEAD = 803_134_332_000
"""Units of a lead: all numbers up to 23, and most products of them, divide it, so that usual weights share exactly."""
Kind = Literal[
    "opening",
    "joined",
    "absent",
    "capped",
    "returned",
    "weight",
    "cycle",
    "turn",
    "given",
    "rejected",
    "expired",
    "reassigned",
    "merged",
    "unmerged",
    "adjusted",
]
CAPS = frozenset({"at capacity", *(f"at capacity for the {of}" for of in ("day", "week", "month"))})
"""Why a rep can take no lead, where it is a limit and not an absence."""
Weights = tuple[tuple[RepId, int], ...]
"""The members among whom a lead is shared out, in the order that breaks ties, with their weights above 0."""


class Account(NamedTuple):
    """A member's standing in a queue: `received` and `entries` count, since the cycle began and since ever.

    `away` says why the member was out when it was last looked at.
    """

    since: datetime
    balance: int = 0
    received: int = 0
    entries: int = 0
    weight: int | None = None
    away: str | None = None


Books = Mapping[RepId, Account]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the books: of `rep_id`, who is the one that got the lead in a turn.

    `units` is what it adds; for a turn it follows from the `weights` of all who were present and from the `level`,
    the sum of their balances before, which is shared out too, `by_weight`, so that those present stand around nought.
    Turns of earlier versions shared the level out in equal parts: with each lead that was given back, members of great
    weight gained on those of little.
    """

    kind: Kind
    rep_id: RepId
    at: datetime
    units: int = 0
    why: str = ""
    weight: int | None = None
    weights: Weights = ()
    level: int = 0
    by_weight: bool = True
    assignment_id: AssignmentId | None = None
    lead_id: LeadId | None = None
    actor: str | None = None


def shared_out(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of a total by weight that add up to it exactly: what is left over goes one each to the first."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    for place in range(total - sum(parts)):
        parts[place] += 1
    return parts


@lru_cache(maxsize=1_000)
def earned(weights: Weights, level: int, *, by_weight: bool = True) -> Mapping[RepId, int]:
    """What each member present gains by one more lead to give out, before anybody pays for it."""
    shares = _shares(weights)
    if level:
        parts = shared_out(level, [weight if by_weight else 1 for _, weight in weights])
        shares = tuple(share - part for share, part in zip(shares, parts, strict=True))
    return {rep_id: share for (rep_id, _), share in zip(weights, shares, strict=True)}


@lru_cache(maxsize=1_000)
def _shares(weights: Weights) -> tuple[int, ...]:
    return tuple(shared_out(LEAD, [weight for _, weight in weights]))


def added(entry: Entry) -> dict[RepId, int]:
    """What an entry adds to each balance that it touches."""
    if entry.kind != "turn":
        return {entry.rep_id: entry.units}
    gained = dict(earned(entry.weights, entry.level, by_weight=entry.by_weight))
    gained[entry.rep_id] = gained.get(entry.rep_id, 0) - LEAD
    return gained


def folded(books: Books, entries: Iterable[Entry]) -> dict[RepId, Account]:
    """The books after entries, which are in order."""
    after = dict(books)
    for entry in entries:
        for rep_id, units in added(entry).items():
            old = after.get(rep_id) or Account(entry.at)
            account = Account(old.since, old.balance + units, old.received, old.entries + 1, old.weight, old.away)
            after[rep_id] = _noted(account, entry) if rep_id == entry.rep_id else account
    return after


def _noted(account: Account, entry: Entry) -> Account:
    """What an entry says of its own rep, besides the balance."""
    match entry.kind:
        case "turn" | "given" | "unmerged":
            return account._replace(received=account.received + 1)
        case "rejected" | "expired" | "reassigned" | "merged":
            return account._replace(received=account.received - 1)
        case "joined":
            return account._replace(weight=entry.weight, since=entry.at)
        case "weight":
            return account._replace(weight=entry.weight)
        case "absent" | "capped":
            return account._replace(away=entry.why)
        case "returned":
            return account._replace(away=None)
        case "cycle":
            return account._replace(received=0, since=entry.at)
        case "adjusted" | "opening":
            return account
        case _:
            assert_never(entry.kind)


def touched(before: Books, after: Books) -> dict[RepId, Account]:
    """The accounts that changed."""
    return {rep_id: account for rep_id, account in after.items() if before.get(rep_id) is not account}
