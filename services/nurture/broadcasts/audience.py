"""Whom a broadcast means, told in pieces: however many they are, no more than a piece is in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.nurture.broadcasts import queries
from services.nurture.broadcasts.document import Audience, condition
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from shared.db import Connection
from shared.identity import resolve_many
from shared.ids import LeadId

AT_ONCE = 1_000
OPENED_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the people, and the place after them; `last` says that there are no more."""

    persons: Sequence[LeadId]
    to: str
    last: bool


async def next_piece(connection: Connection, parts: Parts, audience: Audience, after: str | None) -> Piece:
    """The people after a place, as the persons they are now. Raises Unavailable while a key is on its way."""
    if audience.segment is not None:
        ids = await queries.in_segment(connection, audience.segment, after or "", AT_ONCE)
        most = AT_ONCE
    elif audience.where is not None:
        ids, most = await queries.with_profile(connection, after or "", OPENED_AT_ONCE), OPENED_AT_ONCE
    else:
        ids = [LeadId(lead_id) for lead_id in sorted(set(audience.leads or ())) if lead_id > (after or "")][:AT_ONCE]
        most = AT_ONCE
    persons = sorted(set(await resolve_many(connection, [(lead_id, None) for lead_id in ids])))
    if audience.where is not None:
        persons = await _meant(connection, parts, audience.where, persons)
    return Piece(persons, ids[-1] if ids else after or "", len(ids) < most)


async def _meant(connection: Connection, parts: Parts, source: str, persons: Sequence[LeadId]) -> list[LeadId]:
    if not persons:
        return []
    known = await people.load_persons(connection, parts.addresses, parts.runtime.keys, persons)
    expression = condition(source)
    return [person_id for person_id in persons if expression.holds(known[person_id].values())[0]]
