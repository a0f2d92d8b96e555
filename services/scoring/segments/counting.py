"""How many touches of a kind people have, ever and within windows of days."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from services.scoring.segments.document import Tally
from services.scoring.segments.domain import Count
from shared.db import Connection
from shared.identity import members_of_many
from shared.ids import LeadId

COUNTS = """
SELECT span.person_id, wanted.type, wanted.days, count(*) AS number, min(touch.occurred_at) AS first,
    max(touch.occurred_at) AS last
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS span (person_id, lead_id, since, until)
JOIN touches AS touch ON touch.lead_id = span.lead_id AND touch.occurred_at > $8 AND NOT touch.automated
    AND (span.since IS NULL OR touch.occurred_at >= span.since)
    AND (span.until IS NULL OR touch.occurred_at < span.until)
JOIN unnest($5::text[], $6::integer[]) AS wanted (type, days)
    ON (wanted.type = touch.type OR wanted.type = 'any')
    AND (wanted.days < 0 OR touch.occurred_at > $7::timestamptz - make_interval(days => wanted.days))
GROUP BY span.person_id, wanted.type, wanted.days
"""
EVER = datetime.min.replace(tzinfo=UTC)


async def count_touches(
    connection: Connection, person_ids: Sequence[LeadId], tallies: Collection[Tally], now: datetime
) -> dict[LeadId, dict[Tally, Count]]:
    """How many touches of these kinds people have, those of a shared browser by whose it was; robots' do not count."""
    families = await members_of_many(connection, person_ids)
    spans = [(person_id, one.lead_id, one.since, one.until) for person_id, family in families.items() for one in family]
    if not spans:
        return {}
    wanted = sorted(tallies)
    oldest = min(now - timedelta(days=one.days) if one.days > 0 else EVER for one in wanted)
    rows = await connection.fetch(
        COUNTS,
        *(list(column) for column in zip(*spans, strict=True)),
        [one.type for one in wanted],
        [one.days for one in wanted],
        now,
        oldest,
    )
    counts: dict[LeadId, dict[Tally, Count]] = {}
    for row in rows:
        tally = Tally(row["type"], row["days"])
        counts.setdefault(LeadId(row["person_id"]), {})[tally] = Count(row["number"], row["first"], row["last"])
    return counts
