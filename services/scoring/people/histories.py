"""What many persons did, in the order in which it happened: one statement, read in pages."""

from collections.abc import AsyncIterator, Sequence

import asyncpg

from shared.db import Connection
from shared.identity import members_of_many
from shared.ids import LeadId

PAGE = 2_000
HISTORIES = """
SELECT member.person, touch.lead_id, touch.event_id, touch.origin, touch.occurred_at, touch.type, touch.channel,
    touch.source, touch.medium, touch.campaign, touch.content, touch.page, touch.referrer_host, touch.automated,
    touch.personal
FROM unnest($1::integer[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS member (person, lead_id, since, until)
JOIN touches AS touch ON touch.lead_id = member.lead_id
    AND (member.since IS NULL OR touch.occurred_at >= member.since)
    AND (member.until IS NULL OR touch.occurred_at < member.until)
ORDER BY member.person, touch.occurred_at, touch.event_id
"""


async def histories(connection: Connection, person_ids: Sequence[LeadId]) -> AsyncIterator[list[asyncpg.Record]]:
    """All touches of persons, person by person, the earliest first; `person` is the place in `person_ids`.

    Needs a transaction. Holds a page in memory, however long the histories are.
    """
    found = await members_of_many(connection, person_ids)
    spans = [(place, member) for place, person_id in enumerate(person_ids) for member in found[person_id]]
    cursor = await connection.cursor(
        HISTORIES,
        [place for place, _ in spans],
        [member.lead_id for _, member in spans],
        [member.since for _, member in spans],
        [member.until for _, member in spans],
    )
    while page := await cursor.fetch(PAGE):
        yield page
