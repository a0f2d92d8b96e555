"""The consent ledger as the API shows it."""

from dataclasses import asdict
from datetime import datetime

import asyncpg

from services.capture.consent import queries
from services.capture.consent.domain import permissions
from services.capture.consent.inputs import ChangedEntry, ChangedPage, ConsentEntry, ConsentOut, PermissionOut
from services.capture.leads.views import family_of
from shared.consents import latest_consents, marketing_words
from shared.db import Connection
from shared.events import ConsentChannel, ConsentEvidence
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.secrets import Secrets
from shared.web import make_cursor


async def consent_out(  # noqa: PLR0913  # whose, by which clocks, and about what
    connection: Connection,
    keys: PersonKeys,
    lead_id: LeadId,
    *,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    channel: ConsentChannel | None = None,
    purpose: str | None = None,
) -> ConsentOut:
    """What the person behind a lead id allows, with the ledger. Raises NoSuchLead, or PersonErased."""
    family = await family_of(connection, lead_id, keys)
    members = sorted(family.members)
    words = await queries.consents_of(connection, members, as_of, known_at)
    return ConsentOut(
        lead_id=family.root.lead_id,
        as_of=as_of,
        known_at=known_at,
        consent=marketing_words(latest_consents(words)),
        permissions=[
            PermissionOut(channel=each, purpose=about, **asdict(found))
            for each, about, found in permissions(words, channel, purpose)
        ],
        entries=await entries_of(connection, keys, await queries.ledger_of(connection, members, as_of, known_at)),
    )


async def entries_of(connection: Connection, keys: PersonKeys, rows: list[asyncpg.Record]) -> list[ConsentEntry]:
    """Entries of the ledger with their evidence, as far as it can still be opened."""
    opened = await keys.open_many(connection, [(row["lead_id"], row["evidence"]) for row in rows])
    return [
        ConsentEntry(**{**row, "evidence": ConsentEvidence.model_validate_json(block) if block else None})
        for row, block in zip(rows, opened, strict=True)
    ]


async def changed_page(
    connection: Connection, secrets: Secrets, after: tuple[datetime, str], limit: int
) -> ChangedPage:
    """A page of the ledger in the order in which it was written."""
    rows, until = await queries.changed_since(connection, after, limit + 1)
    persons = await queries.roots_of(connection, sorted({row["lead_id"] for row in rows}))
    items = [ChangedEntry(**{**row, "person_id": persons.get(row["lead_id"], row["lead_id"])}) for row in rows[:limit]]
    more = None
    if len(rows) > limit:
        more = make_cursor(secrets, "consent", [items[-1].recorded_at.isoformat(), items[-1].event_id])
    return ChangedPage(items=items, next_cursor=more, complete_until=until)
