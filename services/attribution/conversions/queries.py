"""The statements about conversions, refunds and deals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.attribution.domain import Conversion, Deal, left_after_refunds
from services.attribution.journeys.queries import member_columns
from shared.db import Connection
from shared.events import ConversionRecorded, DealChanged, RefundRecorded
from shared.identity import Member
from shared.ids import ConversionId, DealId, LeadId

CONVERSION_COLUMNS = (
    "conversion_id",
    "position",
    "origin",
    "external_id",
    "lead_id",
    "type",
    "value_minor",
    "currency",
    "occurred_at",
    "received_at",
    "deal_id",
)
TOLD_CONVERSIONS = f"""
unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
    $9::timestamptz[], $10::timestamptz[], $11::text[])
    AS told ({", ".join(CONVERSION_COLUMNS)})
"""
# What is replaced stays as a version; a version that is there already was told twice. What is withdrawn is nobody's.
PUT_CONVERSIONS = f"""
WITH put AS (
    INSERT INTO conversions AS known ({", ".join(CONVERSION_COLUMNS)}) SELECT * FROM {TOLD_CONVERSIONS}
    ON CONFLICT (conversion_id) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in CONVERSION_COLUMNS[1:])}
    WHERE known.received_at IS NULL OR (known.position, known.received_at) < (excluded.position, excluded.received_at)
    RETURNING new.conversion_id, new.lead_id, new.occurred_at,
        {", ".join(f"old.{name} AS old_{name}" for name in CONVERSION_COLUMNS)}
), replaced AS (
    INSERT INTO conversion_versions ({", ".join(CONVERSION_COLUMNS)})
    SELECT {", ".join(f"old_{name}" for name in CONVERSION_COLUMNS)} FROM put WHERE old_lead_id IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT conversion_id, lead_id, occurred_at, old_lead_id, old_occurred_at FROM put
"""
KEEP_CONVERSIONS = f"""
INSERT INTO conversion_versions ({", ".join(CONVERSION_COLUMNS)})
SELECT told.* FROM {TOLD_CONVERSIONS} JOIN conversions AS known USING (conversion_id)
WHERE (known.position, known.received_at) <> (told.position, told.received_at) AND told.lead_id IS NOT NULL
ON CONFLICT DO NOTHING
"""
# The conversion's row is locked first, made up if need be, so that a refund and its conversion cannot miss each other.
LOCK_CONVERSIONS = """
INSERT INTO conversions AS known (conversion_id) SELECT unnest($1::text[])
ON CONFLICT (conversion_id) DO UPDATE SET conversion_id = known.conversion_id
RETURNING conversion_id, lead_id, occurred_at
"""
REFUND_COLUMNS = (
    "conversion_id",
    "refund_id",
    "position",
    "amount_minor",
    "currency",
    "occurred_at",
    "received_at",
)
TOLD_REFUNDS = f"""
unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[], $7::timestamptz[])
    AS told ({", ".join(REFUND_COLUMNS)})
"""
PUT_REFUNDS = f"""
WITH put AS (
    INSERT INTO refunds AS known ({", ".join(REFUND_COLUMNS)}) SELECT * FROM {TOLD_REFUNDS}
    ON CONFLICT (conversion_id, refund_id) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in REFUND_COLUMNS[2:])}
    WHERE (known.position, known.received_at) < (excluded.position, excluded.received_at)
    RETURNING {", ".join(f"old.{name} AS old_{name}" for name in REFUND_COLUMNS)}
)
INSERT INTO refund_versions ({", ".join(REFUND_COLUMNS)})
SELECT {", ".join(f"old_{name}" for name in REFUND_COLUMNS)} FROM put WHERE old_refund_id IS NOT NULL
ON CONFLICT DO NOTHING
"""
KEEP_REFUNDS = f"""
INSERT INTO refund_versions ({", ".join(REFUND_COLUMNS)})
SELECT told.* FROM {TOLD_REFUNDS} JOIN refunds AS known USING (conversion_id, refund_id)
WHERE (known.position, known.received_at) <> (told.position, told.received_at)
ON CONFLICT DO NOTHING
"""
PUT_DEALS = """
INSERT INTO deals AS known SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[])
ON CONFLICT (deal_id) DO UPDATE SET
    revision = excluded.revision, lead_id = excluded.lead_id, opened_at = excluded.opened_at, rep_id = excluded.rep_id
WHERE known.revision < excluded.revision
RETURNING deal_id, old.opened_at IS DISTINCT FROM new.opened_at OR old.rep_id IS DISTINCT FROM new.rep_id AS changed
"""
DEALS = "SELECT deal_id, opened_at, rep_id FROM deals WHERE deal_id = ANY($1)"
OF_DEALS = """
SELECT conversion_id, lead_id, occurred_at FROM conversions WHERE deal_id = ANY($1) AND lead_id IS NOT NULL
"""
REFUNDED = """
LEFT JOIN LATERAL (
    SELECT array_agg(refund.amount_minor) AS amounts FROM refunds AS refund
    WHERE refund.conversion_id = conversion.conversion_id AND refund.currency = conversion.currency
) AS refunded ON true
"""
BELONGING = """
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    AS member (person_id, lead_id, since, until)
JOIN conversions AS conversion ON conversion.lead_id = member.lead_id
    AND (member.since IS NULL OR conversion.occurred_at >= member.since)
    AND (member.until IS NULL OR conversion.occurred_at < member.until)
"""
OF_PEOPLE = f"""
SELECT member.person_id, conversion.*, refunded.amounts {BELONGING} {REFUNDED}
ORDER BY conversion.occurred_at, conversion.conversion_id
"""
PAGE = f"""
SELECT conversion.*, refunded.amounts {BELONGING} {REFUNDED}
WHERE $5::timestamptz IS NULL OR (conversion.occurred_at, conversion.conversion_id) > ($5, $6::text)
ORDER BY conversion.occurred_at, conversion.conversion_id LIMIT $7
"""
NEWEST = f"""
SELECT conversion.*, refunded.amounts FROM conversions AS conversion {REFUNDED}
WHERE conversion.occurred_at >= $1 AND conversion.lead_id IS NOT NULL
ORDER BY conversion.occurred_at DESC, conversion.conversion_id LIMIT $2
"""
ONE = f"""
SELECT conversion.*, refunded.amounts FROM conversions AS conversion {REFUNDED}
WHERE conversion.conversion_id = $1 AND conversion.lead_id IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A conversion with the id it came with and its time: what decides whose it is."""

    conversion_id: ConversionId
    lead_id: LeadId
    occurred_at: datetime


async def put_conversions(connection: Connection, events: Sequence[ConversionRecorded]) -> list[Placed]:
    """Store conversions, one per id; of two the one received last stays, the others are kept as its versions.

    Answers those that changed, and also where they were before. One that is withdrawn is nobody's: it is only where it
    was.
    """
    rows = await connection.fetch(PUT_CONVERSIONS, *_columns(events, CONVERSION_COLUMNS))
    changed = [
        Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]) for row in rows if row["lead_id"] is not None
    ]
    before = [
        Placed(row["conversion_id"], row["old_lead_id"], row["old_occurred_at"])
        for row in rows
        if row["old_lead_id"] is not None
    ]
    return changed + before


async def lock_conversions(connection: Connection, conversion_ids: Iterable[ConversionId]) -> list[Placed]:
    """Take the locks of these conversions; answers those that are known already."""
    rows = await connection.fetch(LOCK_CONVERSIONS, sorted(set(conversion_ids)))
    return [
        Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]) for row in rows if row["lead_id"] is not None
    ]


async def keep_conversions(connection: Connection, events: Sequence[ConversionRecorded]) -> None:
    """Keep those of these conversions that do not count as versions of those that do."""
    await connection.execute(KEEP_CONVERSIONS, *_columns(events, CONVERSION_COLUMNS))


async def put_refunds(connection: Connection, events: Sequence[RefundRecorded]) -> None:
    """Store refunds, one per conversion and refund id; of two the one received last stays."""
    await connection.execute(PUT_REFUNDS, *_columns(events, REFUND_COLUMNS))


async def keep_refunds(connection: Connection, events: Sequence[RefundRecorded]) -> None:
    """Keep those of these refunds that do not count as versions of those that do."""
    await connection.execute(KEEP_REFUNDS, *_columns(events, REFUND_COLUMNS))


async def put_deals(connection: Connection, events: Sequence[DealChanged]) -> list[DealId]:
    """Store when deals were created and whose they are, the highest revision winning; answers those that changed."""
    rows = await connection.fetch(
        PUT_DEALS,
        [event.deal_id for event in events],
        [event.revision for event in events],
        [event.lead_id for event in events],
        [event.opened_at for event in events],
        [event.rep_id for event in events],
    )
    return [row["deal_id"] for row in rows if row["changed"]]


async def deals(connection: Connection, deal_ids: Iterable[DealId]) -> dict[DealId, Deal]:
    """The deals that are known."""
    rows = await connection.fetch(DEALS, sorted(set(deal_ids)))
    return {row["deal_id"]: Deal(row["opened_at"], row["rep_id"]) for row in rows}


async def conversions_of_deals(connection: Connection, deal_ids: Iterable[DealId]) -> list[Placed]:
    """The conversions that deals were won with; what was withdrawn is nobody's."""
    rows = await connection.fetch(OF_DEALS, sorted(set(deal_ids)))
    return [Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]) for row in rows]


async def conversions_of_people(
    connection: Connection, people: Mapping[LeadId, Sequence[Member]]
) -> dict[LeadId, list[Conversion]]:
    """The conversions of persons, in order of time; persons without any are left out."""
    found: dict[LeadId, list[Conversion]] = defaultdict(list)
    for row in await connection.fetch(OF_PEOPLE, *member_columns(people)):
        found[row["person_id"]].append(_conversion(row))
    return dict(found)


async def conversions_page(
    connection: Connection, members: Sequence[Member], *, after: tuple[datetime, str] | None, limit: int
) -> list[Conversion]:
    """The conversions of one person after a place in the list, in order of time."""
    at, conversion_id = after or (None, None)
    columns = member_columns({LeadId(""): members})
    return [_conversion(row) for row in await connection.fetch(PAGE, *columns, at, conversion_id, limit)]


async def newest_conversions(connection: Connection, since: datetime, limit: int) -> list[Conversion]:
    """The newest conversions since then."""
    return [_conversion(row) for row in await connection.fetch(NEWEST, since, limit)]


async def conversion(connection: Connection, conversion_id: ConversionId) -> Conversion | None:
    """One conversion."""
    row = await connection.fetchrow(ONE, conversion_id)
    return _conversion(row) if row else None


def _columns(events: Sequence[ConversionRecorded] | Sequence[RefundRecorded], names: Sequence[str]) -> list[list[Any]]:
    return [[_column(event, name) for event in events] for name in names]


def _column(event: ConversionRecorded | RefundRecorded, name: str) -> Any:
    withdrawn = isinstance(event, ConversionRecorded) and event.withdrawn
    return None if withdrawn and name == "lead_id" else getattr(event, name)


def _conversion(row: asyncpg.Record) -> Conversion:
    amounts = row["amounts"] or ()
    return Conversion(
        conversion_id=row["conversion_id"],
        origin=row["origin"],
        external_id=row["external_id"],
        lead_id=row["lead_id"],
        type=row["type"],
        value_minor=left_after_refunds(row["value_minor"], amounts),
        currency=row["currency"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        deal_id=row["deal_id"],
        refunded_minor=sum(amounts),
    )
