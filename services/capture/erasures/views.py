"""Receipts as the API shows them."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from services.capture.erasures import queries
from services.capture.erasures.domain import Report, ServiceDone, signature, state_of, summed
from services.capture.erasures.inputs import Receipt, Remains, ServiceErased
from services.capture.erasures.queries import ReceiptRow
from services.capture.errors import NoSuchReceipt
from shared.db import Connection
from shared.events import TOPICS
from shared.ids import LeadId
from shared.secrets import Secrets

KEY = "erasure-receipts"
CONFIG = {topic.name: topic.config for topic in TOPICS}
KEYS_COMPACTED = timedelta(milliseconds=int(CONFIG["keys"]["max.compaction.lag.ms"]))
DELIVERIES_KEPT = timedelta(milliseconds=int(CONFIG["deliveries"]["retention.ms"]))


async def receipt(connection: Connection, secrets: Secrets, receipt_id: str) -> Receipt:
    """A receipt by its id. Raises NoSuchReceipt."""
    row = await queries.receipt(connection, receipt_id)
    if row is None:
        raise NoSuchReceipt(f"there is no receipt {receipt_id[:64]}")
    return (await receipts(connection, secrets, [row]))[0]


async def receipts(connection: Connection, secrets: Secrets, rows: Sequence[ReceiptRow]) -> list[Receipt]:
    """Receipts with what the services have reported until now."""
    names = [row.receipt_id for row in rows]
    lead_ids = await queries.ids_of(connection, names)
    reports = await queries.reports_of(connection, names)
    key = secrets.derive(KEY)
    return [_receipt(key, row, lead_ids[row.receipt_id], reports[row.receipt_id]) for row in rows]


def _receipt(key: bytes, row: ReceiptRow, lead_ids: Sequence[LeadId], reports: Sequence[Report]) -> Receipt:
    services = summed(lead_ids, reports)
    ours = services["capture"]
    services["capture"] = ServiceDone(
        state="running" if row.due else ours.state,
        erased={**ours.erased, "kept_requests": row.requests},
        kept=ours.kept,
        why_kept=ours.why_kept,
        at=ours.at,
    )
    state = state_of(services)
    made = Receipt(
        receipt_id=row.receipt_id,
        lead_id=row.lead_id,
        lead_ids=list(lead_ids),
        erased_at=row.erased_at,
        state=state,
        completed_at=max(done.at for done in services.values() if done.at) if state == "done" else None,
        reason=row.reason,
        requested_by=row.requested_by,
        reference=row.reference,
        origin=row.origin,
        services={name: ServiceErased(**asdict(done)) for name, done in sorted(services.items())},
        remains=[
            Remains(
                what="the person's key in the topic keys, wrapped with the installation's key, until it is compacted",
                until=row.erased_at + KEYS_COMPACTED,
            ),
            Remains(
                what="requests of sources in the topic deliveries, sealed with the installation's key",
                until=row.erased_at + DELIVERIES_KEPT,
            ),
        ],
    )
    content = made.model_dump(mode="json", exclude={"signature"})
    return made.model_copy(update={"signature": signature(key, content)})
