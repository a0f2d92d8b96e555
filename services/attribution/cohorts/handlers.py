"""What happens to cohorts when something changed about persons: they are counted anew, a moment later."""

from collections.abc import Collection, Mapping, Sequence

from services.attribution.cohorts import queries
from services.attribution.cohorts.domain import Bought, contact, moves
from services.attribution.conversions.queries import conversions_of_people
from services.attribution.domain import Conversion
from shared.db import Connection
from shared.identity import Member
from shared.ids import LeadId


async def count_contacts(
    connection: Connection, people: Mapping[LeadId, Sequence[Member]], concerned: Collection[LeadId]
) -> None:
    """Count the contacts of persons anew. Ids that are `concerned` and nobody's any more are not counted.

    The caller sees to it that no other transaction counts the same persons meanwhile.
    """
    first_touches = await queries.first_touches(connection, people)
    conversions = await conversions_of_people(connection, people)
    found = {
        person: known
        for person in people
        if (known := contact(first_touches.get(person), map(_bought, conversions.get(person, ())))) is not None
    }
    stored = await queries.stored_contacts(connection, {*people, *concerned})
    changed = {person: one for person, one in found.items() if stored.get(person) != one}
    gone = stored.keys() - found.keys()
    if changed or gone:
        before = [stored[person] for person in (*gone, *(changed.keys() & stored.keys()))]
        await queries.replace_contacts(connection, changed, gone)
        await queries.move_sums(connection, *moves(before, changed.values()))


def _bought(conversion: Conversion) -> Bought:
    return Bought(conversion.conversion_id, conversion.occurred_at, conversion.currency, conversion.value_minor)
