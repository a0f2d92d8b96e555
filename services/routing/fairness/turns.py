"""Whose turn it is: a weighted round robin that never lets anybody get a whole lead ahead or behind.

With each lead given out, every member who could have had it earns the share its weight has of the weights present, and
the one who gets it pays one lead. Picking simply the highest balance ("smooth weighted round robin") lets a member fall
more than one lead behind when many weights differ. Picking, of n members, among those who are owed 1 / (2n - 2) of a
lead or more, the one who would first be 1 - 1 / (2n - 2) behind keeps every balance within that (R. Tijdeman, "The
chairman assignment problem", Discrete Mathematics 32, 1980). With equal weights both are the plain round robin.

Who joins, or comes back from an absence, starts at the level of those who are there: nobody catches up on what was
given out meanwhile. Who was out for a limit of their own keeps what they had, and, where the queue says so, goes on
earning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import lcm
from typing import Protocol

from services.routing.fairness.domain import CAPS, LEAD, Account, Books, Entry, Weights, earned, folded
from shared.ids import AssignmentId, LeadId, RepId


class Member(Protocol):
    """A member as a decision finds it: `out` says why this lead cannot be theirs, `away` why no lead could be.

    `earns` says that it shares in the lead though it cannot have it: out for a limit, in a queue that makes that up.
    """

    @property
    def rep_id(self) -> RepId: ...

    @property
    def weight(self) -> int: ...

    @property
    def out(self) -> str | None: ...

    @property
    def away(self) -> str | None: ...

    @property
    def earns(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """Who gets the lead, and the entries that say what changed before it and with it; the last one is the turn."""

    rep_id: RepId
    entries: tuple[Entry, ...]


def next_turn(members: Sequence[Member], books: Books, at: datetime, *, monthly: bool = False) -> Turn:
    """The next turn among those who are not out, at least one; members are in the order that breaks ties.

    `monthly` begins the books of each calendar month (UTC) anew: whole leads owed are forgotten, the rest stays.
    """
    changes = [*_new_month(books, at)] if monthly else []
    known = folded(books, changes) if changes else books
    changes += (arrivals := list(_arrivals(members, known, at)))
    books = folded(known, arrivals) if arrivals else known
    present = tuple((member.rep_id, member.weight) for member in members if member.out is None or member.earns)
    can_take = {member.rep_id for member in members if member.out is None}
    level = sum(books[rep_id].balance for rep_id, _ in present)
    chosen = _first_behind(present, can_take, books, level)
    return Turn(chosen, (*changes, Entry("turn", chosen, at, weights=present, level=level)))


def settled_turn(weights: Weights, books: Books, rep_id: RepId, at: datetime) -> Entry:
    """The turn that a lead made which is known to have gone to this rep, one of these."""
    level = sum(books[rep].balance for rep, _ in weights if rep in books)
    return Entry("turn", rep_id, at, weights=weights, level=level)


def _first_behind(present: Weights, can_take: set[RepId], books: Books, level: int) -> RepId:
    owed = {rep_id: books[rep_id].balance + units for rep_id, units in earned(present, level).items()}
    every = lcm(*(weight for _, weight in present))
    able = [(rep_id, weight) for rep_id, weight in present if rep_id in can_take]
    least = LEAD // max(2 * len(present) - 2, 1)
    choice = [one for one in able if owed[one[0]] >= least] or able
    return min(choice, key=lambda one: ((LEAD - least - owed[one[0]]) * (every // one[1]), -owed[one[0]]))[0]


def _arrivals(members: Sequence[Member], books: Books, at: datetime) -> Iterator[Entry]:
    """What changed about members since the books were last looked at."""
    told = {member.rep_id for member in members}
    gone = [rep_id for rep_id, account in books.items() if rep_id not in told and not _was_absent(account)]
    changed = [member for member in members if _is_new(member, books.get(member.rep_id))]
    level = _level(members, books) if changed else 0
    for member in changed:
        account = books.get(member.rep_id)
        if account is not None:
            yield from _changes(member, account, level, at)
        elif member.out is None or member.earns:
            yield Entry("joined", member.rep_id, at, level, "starts at the level of the others", weight=member.weight)
    for rep_id in sorted(gone):
        yield Entry("absent", rep_id, at, why="deactivated, or taken out of the queue")


def _is_new(member: Member, account: Account | None) -> bool:
    return account is None or member.away != account.away or member.weight != account.weight


def _level(members: Sequence[Member], books: Books) -> int:
    """Where those stand who share in the lead and have not been absent."""
    here = [books.get(member.rep_id) for member in members if member.out is None or member.earns]
    settled = [account.balance for account in here if account is not None and not _was_absent(account)]
    return sum(settled) // len(settled) if settled else 0


def _changes(member: Member, account: Account, level: int, at: datetime) -> Iterator[Entry]:
    if member.away != account.away and (member.away is not None or member.out is None or member.earns):
        yield _presence(member, account, level, at)
    if member.weight != account.weight and (member.out is None or member.earns):
        before = "unknown" if account.weight is None else account.weight
        why = f"from {before} to {member.weight}"
        yield Entry("weight", member.rep_id, at, why=why, weight=member.weight)


def _presence(member: Member, account: Account, level: int, at: datetime) -> Entry:
    if member.away in CAPS:
        back = level - account.balance if _was_absent(account) else 0
        return Entry("capped", member.rep_id, at, back, member.away or "")
    if member.away is not None:
        return Entry("absent", member.rep_id, at, why=member.away)
    if account.away in CAPS:
        return Entry("returned", member.rep_id, at, why=f"was {account.away}; what was owed stays")
    why = f"was {account.away}; starts at the level of the others"
    return Entry("returned", member.rep_id, at, level - account.balance, why)


def _was_absent(account: Account) -> bool:
    return account.away is not None and account.away not in CAPS


def _new_month(books: Books, at: datetime) -> Iterator[Entry]:
    begin = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for rep_id, account in sorted(books.items()):
        if account.since < begin:
            whole = abs(account.balance) // LEAD * LEAD
            forgotten = -whole if account.balance > 0 else whole
            yield Entry("cycle", rep_id, begin, forgotten, f"{begin:%B %Y} begins; what is less than a lead stays")


def named(entries: tuple[Entry, ...], assignment_id: AssignmentId, lead_id: LeadId) -> tuple[Entry, ...]:
    """The entries of a turn, the last one with the lead that it was about."""
    return (*entries[:-1], replace(entries[-1], assignment_id=assignment_id, lead_id=lead_id))
