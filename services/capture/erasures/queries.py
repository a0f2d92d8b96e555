"""The statements about receipts of erasures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.capture.erasures.domain import Report, Wish
from shared.db import Connection, one
from shared.events import ErasureReported
from shared.ids import LeadId

OPEN = """
INSERT INTO erasures (receipt_id, lead_id, erased_at, reason, requested_by, reference, origin, traces, due)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING receipt_id
"""
COVER = (
    "INSERT INTO erased_ids (lead_id, receipt_id) SELECT id, $2 FROM unnest($1::text[]) AS id ON CONFLICT DO NOTHING"
)
RECEIPT_OF = "SELECT receipt_id FROM erased_ids WHERE lead_id = $1"
RECEIPT = """
SELECT receipt_id, lead_id, erased_at, reason, requested_by, reference, origin, due, requests FROM erasures
WHERE receipt_id = $1
"""
IDS = "SELECT receipt_id, lead_id FROM erased_ids WHERE receipt_id = ANY($1) ORDER BY lead_id"
MAKE_DUE = "UPDATE erasures SET due = true WHERE receipt_id = $1"
REPORTS = """
SELECT receipt_id, lead_id, service, erased, kept, why_kept, at FROM erasure_reports WHERE receipt_id = ANY($1)
ORDER BY at, lead_id
"""
REPORT = """
INSERT INTO erasure_reports (receipt_id, lead_id, service, erased, kept, why_kept, at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp()) ON CONFLICT DO NOTHING
"""
NEWEST = """
SELECT receipt_id, lead_id, erased_at, reason, requested_by, reference, origin, due, requests FROM erasures
WHERE ($1::timestamptz IS NULL OR (erased_at, receipt_id) < ($1, $2)) AND ($4::text IS NULL OR reference = $4)
ORDER BY erased_at DESC, receipt_id DESC LIMIT $3
"""
TAKE_DUE = """
SELECT receipt_id, lead_id, erased_at, traces FROM erasures WHERE due ORDER BY erased_at LIMIT 1
FOR UPDATE SKIP LOCKED
"""
DONE = "UPDATE erasures SET due = false, traces = NULL, requests = requests + $2 WHERE receipt_id = $1"
COUNTS = """
SELECT (SELECT count(*) FROM leads WHERE lead_id = $1 AND (sealed IS NOT NULL OR statements <> '{}')) AS profiles,
       (SELECT count(*) FROM identifiers WHERE own_id = $1) AS identifiers,
       (SELECT count(*) FROM links WHERE lead_id = $1) AS browser_links,
       (SELECT count(*) FROM consent_entries WHERE lead_id = $1 AND evidence IS NOT NULL) AS consent_evidence,
       (SELECT count(*) FROM form_submissions WHERE lead_id = $1 AND sealed IS NOT NULL) AS form_answers,
       (SELECT count(*) FROM optins WHERE lead_id = $1 AND sealed IS NOT NULL) AS optin_texts,
       (SELECT count(*) FROM likeness_keys WHERE lead_id = $1) AS likeness_keys,
       (SELECT count(*) FROM enrichment_asks WHERE lead_id = $1) AS provider_answers,
       (SELECT count(*) FROM person_keys WHERE lead_id = $1 AND wrapped_key IS NOT NULL) AS keys,
       (SELECT count(*) FROM consent_entries WHERE lead_id = $1) AS consent_entries,
       (SELECT count(*) FROM deliveries WHERE lead_id = $1) AS deliveries
"""
KEPT_REQUESTS = """
SELECT source_id, delivery_id, sealed FROM deliveries
WHERE sealed IS NOT NULL AND (source_id, delivery_id) > ($1, $2) ORDER BY source_id, delivery_id LIMIT $3
"""
FORGET_REQUESTS = """
UPDATE deliveries SET state = 'ignored', reason = 'erased', sealed = NULL, try_at = NULL
FROM unnest($1::text[], $2::text[]) AS gone (source_id, delivery_id)
WHERE deliveries.source_id = gone.source_id AND deliveries.delivery_id = gone.delivery_id
"""


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A receipt as it was opened."""

    receipt_id: str
    lead_id: LeadId
    erased_at: datetime
    reason: str | None
    requested_by: str | None
    reference: str | None
    origin: str
    due: bool
    requests: int


async def open_receipt(  # noqa: PLR0913  # a row
    connection: Connection,
    receipt_id: str,
    lead_id: LeadId,
    at: datetime,
    wish: Wish,
    traces: str | None,
    *,
    due: bool,
) -> bool:
    """Open a receipt; `due`, with the sealed `traces`, says that kept requests are still to be looked through.

    False if it is there; waits for one being opened.
    """
    row = await connection.fetchval(
        OPEN, receipt_id, lead_id, at, wish.reason, wish.requested_by, wish.reference, wish.origin, traces, due
    )
    return row is not None


async def cover(connection: Connection, lead_ids: Sequence[LeadId], receipt_id: str) -> bool:
    """Say that ids were erased by this erasure; answers whether any of them is new."""
    return await connection.execute(COVER, lead_ids, receipt_id) != "INSERT 0 0"


async def make_due(connection: Connection, receipt_id: str) -> None:
    """Kept requests are to be looked through, again if they were."""
    await connection.execute(MAKE_DUE, receipt_id)


async def receipt_of(connection: Connection, lead_id: LeadId) -> str | None:
    """The receipt of the erasure that an id was part of."""
    found: str | None = await connection.fetchval(RECEIPT_OF, lead_id)
    return found


async def receipt(connection: Connection, receipt_id: str) -> ReceiptRow | None:
    """A receipt by its id."""
    row = await connection.fetchrow(RECEIPT, receipt_id)
    return _row(row) if row else None


async def newest(
    connection: Connection, before: tuple[datetime, str] | None, limit: int, reference: str | None
) -> list[ReceiptRow]:
    """Receipts, the newest first."""
    rows = await connection.fetch(NEWEST, *(before or (None, None)), limit, reference)
    return [_row(row) for row in rows]


async def ids_of(connection: Connection, receipt_ids: Sequence[str]) -> dict[str, list[LeadId]]:
    """The ids that each erasure was about."""
    found: dict[str, list[LeadId]] = {receipt_id: [] for receipt_id in receipt_ids}
    for row in await connection.fetch(IDS, receipt_ids):
        found[row["receipt_id"]].append(LeadId(row["lead_id"]))
    return found


async def reports_of(connection: Connection, receipt_ids: Sequence[str]) -> dict[str, list[Report]]:
    """What the services reported on each erasure."""
    found: dict[str, list[Report]] = {receipt_id: [] for receipt_id in receipt_ids}
    for row in await connection.fetch(REPORTS, receipt_ids):
        report = Report(LeadId(row["lead_id"]), row["service"], row["erased"], row["kept"], row["why_kept"], row["at"])
        found[row["receipt_id"]].append(report)
    return found


async def save_report(connection: Connection, event: ErasureReported) -> None:
    """Keep what a service reported; once for each of a person's ids."""
    await connection.execute(
        REPORT,
        event.receipt_id,
        event.lead_id,
        event.service,
        event.erased,
        event.kept,
        event.why_kept,
    )


async def counts(connection: Connection, lead_id: LeadId) -> asyncpg.Record:
    """What stands here of an id."""
    return await one(connection, COUNTS, lead_id)


async def take_due(connection: Connection) -> asyncpg.Record | None:
    """The oldest erasure whose kept requests are still to be looked through, ours alone until the commit."""
    return await connection.fetchrow(TAKE_DUE)


async def done(connection: Connection, receipt_id: str, requests: int) -> None:
    """All kept requests were looked through; so many were dropped."""
    await connection.execute(DONE, receipt_id, requests)


async def kept_requests(connection: Connection, after: tuple[str, str], limit: int) -> list[asyncpg.Record]:
    """Deliveries whose request is still kept, a page of them."""
    return await connection.fetch(KEPT_REQUESTS, *after, limit)


async def forget_requests(connection: Connection, deliveries: Sequence[tuple[str, str]]) -> None:
    """Drop what was kept of deliveries: they are about somebody erased."""
    sources, names = zip(*sorted(deliveries), strict=True)
    await connection.execute(FORGET_REQUESTS, sources, names)


def _row(row: asyncpg.Record) -> ReceiptRow:
    return ReceiptRow(
        row["receipt_id"],
        LeadId(row["lead_id"]),
        row["erased_at"],
        row["reason"],
        row["requested_by"],
        row["reference"],
        row["origin"],
        row["due"],
        row["requests"],
    )
