"""Who is in a queue now, and how each of them stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.routing.fairness.domain import Account, Books, Entry
from services.routing.reps.domain import Rep
from services.routing.rules.domain import Queue, Rules
from shared.ids import RepId


@dataclass(frozen=True, slots=True)
class Member:
    """A rep in a queue: with the weight that counts there, and why no lead could be given to them now."""

    rep: Rep
    weight: int
    why_not: str | None
    account: Account | None


def members_of(queue: Queue | None, reps: Sequence[Rep], books: Books, at: datetime) -> list[Member]:
    """The members of a queue, and those who have an account from when they were; `reps` are all of both.

    A condition that reads the lead says nothing of who is a member: there it is those who were in the running once.
    """
    found: list[Member] = []
    for rep in reps:
        weight = _weight(queue, rep)
        account = books.get(rep.rep_id)
        if weight is None and account is None:
            continue
        why_not = "not in the queue" if weight is None and queue is not None else rep.cannot_take(at)
        if queue is None:
            why_not = "the active rules have no such queue"
        known = account.weight if account is not None and account.weight is not None else rep.weight
        found.append(Member(rep, known if weight is None else weight, why_not, account))
    return found


def joining(members: Sequence[Member], at: datetime) -> list[Entry]:
    """The members present who have no account yet, at nought: before one of them is set apart from the others."""
    why = "starts level"
    return [
        Entry("joined", member.rep.rep_id, at, why=why, weight=member.weight)
        for member in members
        if member.account is None and member.why_not is None and member.weight > 0
    ]


def rule_ids(rules: Rules, queue: Queue) -> list[str]:
    """The rules that give leads to a queue, in order."""
    return [rule.rule_id for rule in rules.in_order if rule.queue.queue_id == queue.queue_id]


def named(queue: Queue | None) -> list[RepId]:
    """The members that a queue names."""
    return list(queue.members or ()) if queue is not None else []


def _weight(queue: Queue | None, rep: Rep) -> int | None:
    """The rep's weight in the queue; None when it is not a member, or not known to be one."""
    if queue is None:
        return None
    if queue.members is not None:
        own = queue.members.get(rep.rep_id)
        return None if rep.rep_id not in queue.members else rep.weight if own is None else own
    if queue.who is None:
        return rep.weight
    reads_rep_alone = all(path[0] == "rep" for path in queue.who.references)
    return rep.weight if reads_rep_alone and queue.who.holds({"rep": rep.values()})[0] else None
