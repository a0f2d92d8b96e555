"""Assignments and holds follow the person: whoever two leads turn out to be has one owner."""

from collections.abc import Sequence
from datetime import datetime

from services.routing.assignments import holds, queries
from services.routing.assignments.domain import Assignment
from services.routing.assignments.facts import lead_assigned
from services.routing.assignments.ownership import BECAME, MERGED, is_over, lives_again, one_owner
from services.routing.fairness.handlers import give_back, pay_again
from services.routing.fairness.queries import lock_dispatcher
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.reps.queries import teams_of
from services.routing.sla import queries as clocks
from shared.db import Tx, agreed_now
from shared.events import IdentityLinked, LeadMerged, LeadUnmerged
from shared.identity import resolve_many
from shared.ids import LeadId

Group = list[tuple[Assignment, bool]]
"""Assignments of one person, each with whether it comes from another one."""


async def on_identity_changed(event: LeadMerged | LeadUnmerged | IdentityLinked, tx: Tx, *, parts: Parts) -> None:
    """Assignments and holds follow the person: of two current owners one goes on, told anew; see `one_owner`.

    The other's assignment ends, and lives again when the merge is undone; so does one of somebody who turned out to
    be a customer, or set aside. Whoever reads goes by the highest revision, so that a current assignment is also told
    anew where the other lead had more of them, and the last one, ended or not, where its lead is parted from the one
    that it was told of.
    """
    other = event.anonymous_lead_id if isinstance(event, IdentityLinked) else event.from_lead_id
    connection = tx.connection
    named = [event.lead_id, other]
    await lock_dispatcher(connection)  # before looking: a decision under way was taken without this change
    if not await queries.of_persons(connection, named) and not await holds.of_persons(connection, named):
        return
    at = await agreed_now(connection, parts.runtime.clock)
    groups = await _by_owner(tx, set(named))
    crowded = {owner for owner, group in groups.items() if await _end_losers(tx, group, at)}
    await _move(tx, groups)
    left = {one.person_id for group in groups.values() for one, moved in group if moved}
    for owner, group in groups.items():
        who = await person(connection, owner)
        parting = isinstance(event, LeadUnmerged)
        kept = _kept_of(group)
        if kept is None and not isinstance(event, LeadMerged):
            ended = [
                one
                for one, moved in group
                if (moved and parting) or ((moved or owner in left) and one.end_reason == MERGED)
            ]
            kept = await _revive(tx, lives_again(ended, [one for one, _ in group], who), at)
        if kept is not None and is_over(kept, who):
            await queries.end(connection, kept.assignment_id, at, f"{BECAME} {who.stage}")
        if kept is None and parting:
            kept = max((one for one, moved in group if moved), key=lambda one: one.revision, default=None)
        if kept is None:
            continue
        highest = max(one.revision for one, _ in group)
        parted = parting and (kept, True) in group
        overtaken = any(one.revision >= kept.revision for one, _ in group if one is not kept)
        if owner in crowded or overtaken or parted:
            await queries.raise_revision(connection, kept.assignment_id, highest + 1)
            told = await queries.one(connection, kept.assignment_id)
            assert told is not None
            tx.emit(lead_assigned(told, await teams_of(connection, told.rep_id), kept_by=event.event_id))
    await _move_holds(tx, named)


async def _by_owner(tx: Tx, ids: set[LeadId]) -> dict[LeadId, Group]:
    """All assignments that the persons with these ids have, had or get, by whose they are now."""
    while True:
        assignments = await queries.of_persons(tx.connection, sorted(ids))
        owners = await resolve_many(tx.connection, [(one.lead_id, one.assigned_at) for one in assignments])
        reached = ids | {one.person_id for one in assignments} | set(owners)
        if reached == ids:
            break
        ids = reached
    groups: dict[LeadId, Group] = {}
    for one, owner in zip(assignments, owners, strict=True):
        groups.setdefault(owner, []).append((one, owner != one.person_id))
    return dict(sorted(groups.items()))


def _kept_of(group: Group) -> Assignment | None:
    current = [one for one, _ in group if one.is_current]
    return one_owner(current) if current else None


async def _end_losers(tx: Tx, group: Group, at: datetime) -> bool:
    """End all but one of the current assignments of what is one person now. Answers whether there were any."""
    kept = _kept_of(group)
    losers = [one for one, _ in group if one.is_current and one is not kept]
    for one in losers:
        await queries.end(tx.connection, one.assignment_id, at, MERGED)
        await give_back(tx.connection, one, "merged", "the lead turned out to be another rep's", at)
    return bool(losers)


async def _move(tx: Tx, groups: dict[LeadId, Group]) -> None:
    """Write whose the assignments are now; all leave before any arrives, since a person has one current one."""
    moved = [(one.assignment_id, owner) for owner, group in groups.items() for one, moves in group if moves]
    for assignment_id, _ in moved:
        await queries.move(tx.connection, assignment_id, LeadId(f"moving {assignment_id}"))
    for assignment_id, owner in moved:
        await queries.move(tx.connection, assignment_id, owner)


async def _revive(tx: Tx, ended: Sequence[Assignment], at: datetime) -> Assignment | None:
    """One of those that a merge had ended is the person's again, since nobody else has the lead."""
    if not ended:
        return None
    revived = one_owner(ended)
    await queries.reopen(tx.connection, revived.assignment_id)
    if revived.end_reason == MERGED:
        await pay_again(tx.connection, revived, "the merge that had ended it was undone", at)
    await clocks.resume(tx.connection, revived.assignment_id)
    return revived


async def _move_holds(tx: Tx, ids: Sequence[LeadId]) -> None:
    waiting = await holds.of_persons(tx.connection, ids)
    owners = await resolve_many(tx.connection, [(hold.lead_id, hold.since) for hold in waiting])
    for hold, owner in zip(waiting, owners, strict=True):
        taken = hold.person_id != owner and await holds.of_persons(tx.connection, [owner])
        if taken or await queries.current(tx.connection, owner) is not None:
            await holds.drop(tx.connection, [hold.person_id])
        elif hold.person_id != owner:
            await holds.move(tx.connection, hold.person_id, owner)
