"""People put into static segments by hand, up to ten thousand a call, and taken out again."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from services.scoring.errors import NoSuchSegment, NotAList
from services.scoring.parts import Parts
from services.scoring.people.queries import IDS
from services.scoring.segments import queries
from services.scoring.segments.handlers import examine, met
from services.scoring.segments.queries import Kept
from services.scoring.stages.queries import mark_unsettled
from shared.db import Connection, Database, Tx
from shared.emails import Email
from shared.events import LeadErased
from shared.identity import LeadIds, find_by_email, resolve_many
from shared.ids import LeadId, SegmentId

PUT_LISTED = """
INSERT INTO segment_listed (segment_id, lead_id, added_at) SELECT $1, id, $3 FROM unnest($2::text[]) AS id ORDER BY id
ON CONFLICT DO NOTHING RETURNING lead_id
"""
DROP_LISTED = f"""{IDS}
DELETE FROM segment_listed USING ids
WHERE segment_listed.segment_id = $2 AND segment_listed.lead_id = ids.id RETURNING ids.person_id
"""
FORGET_LISTED = "DELETE FROM segment_listed WHERE lead_id = $1"
PAGE = 500
State = Literal["added", "already", "awaited", "removed", "absent", "invalid"]
LEAD_ID = re.compile(r"[\x21-\x7e]{1,200}")
_EMAIL: TypeAdapter[str] = TypeAdapter(Email)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one item of a call: the person it means, and how the list changed."""

    lead_id: LeadId | None
    state: State


INVALID = Change(None, "invalid")


async def by_emails(connection: Connection, ids: LeadIds, emails: Sequence[str]) -> list[LeadId | None]:
    """The leads with these addresses, known or not; None for what is no address."""
    found = [_lead_of(ids, email) for email in emails]
    erased = await queries.erased_of(connection, sorted({lead_id for _, lead_id in found if lead_id is not None}))
    return [await find_by_email(connection, ids, email) if lead_id in erased else lead_id for email, lead_id in found]


def _lead_of(ids: LeadIds, email: str) -> tuple[str, LeadId | None]:
    try:
        address = _EMAIL.validate_python(email)
    except ValidationError:
        return email, None
    return address, ids.of_email(address)


async def change_list(
    database: Database, parts: Parts, segment_id: SegmentId, lead_ids: Sequence[LeadId], *, adding: bool
) -> list[Change]:
    """Put people into a static segment or take them out; the answers stand in the order of the ids.

    An id of which nothing is known yet is kept, and its person is in as soon as there is one. Raises NoSuchSegment
    and NotAList.
    """
    async with database.transaction() as tx:
        await _list(tx.connection, segment_id)
        people = await resolve_many(tx.connection, [(lead_id, None) for lead_id in lead_ids])
        known = await queries.known_people(tx.connection, people)
        if adding:
            listed = await queries.lists_of(tx.connection, sorted(set(people)))
            before = {one for one in set(people) if segment_id in listed.get(one, ())}
            await put_listed(tx.connection, segment_id, set(people) - before, await parts.present(tx.connection))
            moved = set(people) - before
        else:
            moved = await drop_listed(tx.connection, segment_id, people)
        await mark_unsettled(tx.connection, moved & known)  # should this process end before the pages below
    ordered = sorted(moved & known)
    for start in range(0, len(ordered), PAGE):
        await _settle(database, parts, segment_id, ordered[start : start + PAGE])
    answer = _added if adding else _removed
    return [Change(one, answer(one in moved, one in known)) for one in people]


async def _settle(database: Database, parts: Parts, segment_id: SegmentId, person_ids: Sequence[LeadId]) -> None:
    async with database.transaction() as tx:
        people, stages = await met(tx.connection, person_ids)
        live = await parts.segments.live(tx.connection)
        await examine(tx, parts, live, live.concerned((), [segment_id]), people, stages)


async def _list(connection: Connection, segment_id: SegmentId) -> Kept:
    kept = await queries.share_segment(connection, segment_id)  # a list that is cleared away stays empty
    if kept is None:
        raise NoSuchSegment(f"there is no segment {segment_id}")
    if kept.kind != "static":
        raise NotAList(f"{segment_id} finds its members by its condition; make a static segment for a list")
    return kept


def _added(moved: bool, known: bool) -> State:
    if not known:
        return "awaited"
    return "added" if moved else "already"


def _removed(moved: bool, _known: bool) -> State:
    return "removed" if moved else "absent"


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """An erased id is on no list."""
    await forget_listed(tx.connection, event.lead_id)


async def put_listed(
    connection: Connection, segment_id: SegmentId, lead_ids: Iterable[LeadId], at: datetime
) -> set[LeadId]:
    """Put ids on a list; answers those that were not on it."""
    rows = await connection.fetch(PUT_LISTED, segment_id, sorted(set(lead_ids)), at)
    return {LeadId(row["lead_id"]) for row in rows}


async def drop_listed(connection: Connection, segment_id: SegmentId, person_ids: Iterable[LeadId]) -> set[LeadId]:
    """Take people off a list, whichever of their ids is on it; answers those who were on it."""
    rows = await connection.fetch(DROP_LISTED, sorted(set(person_ids)), segment_id)
    return {LeadId(row["person_id"]) for row in rows}


async def forget_listed(connection: Connection, lead_id: LeadId) -> None:
    """Take an erased id off every list."""
    await connection.execute(FORGET_LISTED, lead_id)
