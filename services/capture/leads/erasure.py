"""Forgetting a person: their keys are destroyed, and with them every copy of what was personal."""

from dataclasses import dataclass
from datetime import datetime

from services.capture.accounts.forgetting import forget_accounts
from services.capture.duplicates import queries as likenesses
from services.capture.errors import Contended, NoSuchLead
from services.capture.leads import queries
from services.capture.leads.identifying import Named, identify
from services.capture.leads.telling import lead_erased
from shared.db import Connection, Tx
from shared.ids import LeadId
from shared.service import Runtime

IDS = """
SELECT lead_id FROM unnest($1::text[]) AS lead_id
UNION SELECT own_id FROM identifiers WHERE lead_id = ANY($1)
UNION SELECT anonymous_id FROM links WHERE lead_id = ANY($1)
"""
KEY_EXISTS = """
SELECT EXISTS (SELECT 1 FROM person_keys WHERE lead_id = $1)
   AND NOT EXISTS (SELECT 1 FROM accounts WHERE account_id = $1)
"""
ERASED_AT = "SELECT erased_at FROM leads WHERE lead_id = $1"
STRIP = """
UPDATE leads SET statements = '{}', origin = '', erased_at = $2, updated_at = $2 WHERE lead_id = ANY($1)
"""
FORGET_IDENTIFIERS = "DELETE FROM identifiers WHERE own_id = ANY($1)"
FORGET_LINKS = "DELETE FROM links WHERE lead_id = ANY($1) OR anonymous_id = ANY($1)"
FORGET_REASONS = "UPDATE consent_entries SET reason = NULL WHERE lead_id = ANY($1) AND reason IS NOT NULL"
FORGET_ANSWERS = """
DELETE FROM idempotency_keys WHERE EXISTS (
    SELECT 1 FROM unnest($1::text[]) AS lead_id WHERE position(convert_to(lead_id, 'UTF8') IN body) > 0
)
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target) VALUES ($1, 'lead.erased', $2)"


@dataclass(frozen=True, slots=True)
class Erased:
    """Who was forgotten, and all ids that this made unreadable."""

    lead_id: LeadId
    erased_at: datetime
    lead_ids: list[LeadId]


async def erase(lead_id: LeadId, actor: str, tx: Tx, runtime: Runtime) -> Erased:
    """Forget the person behind a lead id, whatever the id is of: a lead, one merged away, an identifier, a browser.

    All their ids go together: of merged leads, of identifiers, and of browsers they used, also shared ones; facts keep
    their ids and so counts and credit stay. Erasing twice changes nothing. Raises NoSuchLead for an id nobody has.
    """
    connection = tx.connection
    now = runtime.clock.now()
    root = await queries.root_of(connection, lead_id)
    if root is None:
        return await _erase_known_by_touches(lead_id, actor, tx, runtime)
    erased_at = await connection.fetchval(ERASED_AT, root)
    if erased_at is not None:
        return Erased(root, erased_at, [root])
    if not await queries.lock_roots(connection, [root]):
        raise Contended("somebody else merged this lead just now")
    members = sorted((await queries.families_of(connection, [root]))[root].members)
    lead_ids = await _ids_of(connection, members)
    await connection.execute(STRIP, members, now)
    await connection.execute(FORGET_IDENTIFIERS, lead_ids)
    await connection.execute(FORGET_LINKS, lead_ids)
    await connection.execute(FORGET_REASONS, lead_ids)
    await forget_accounts(members, now, tx, runtime)
    await likenesses.forget(connection, members)
    await _destroy(lead_ids, root, actor, now, tx, runtime)
    return Erased(root, now, lead_ids)


async def erase_named(named: Named, stored_at: datetime, actor: str, tx: Tx, runtime: Runtime) -> Erased | None:
    """Forget whom a source passes on the wish of; None if nobody here is known by these identifiers."""
    identified = await identify(tx.connection, runtime.ids, named, stored_at)
    erased = None
    for identifier in identified.strong if identified else ():
        if await _is_known(tx.connection, identifier.own_id):
            erased = await erase(identifier.own_id, actor, tx, runtime)
    return erased


async def _erase_known_by_touches(lead_id: LeadId, actor: str, tx: Tx, runtime: Runtime) -> Erased:
    """An id that only touches came with has no row here, but a key."""
    if not await _is_known(tx.connection, lead_id):
        raise NoSuchLead(f"there is no lead {lead_id}")
    destroyed = await queries.destroyed_at(tx.connection, [lead_id])
    if lead_id in destroyed:
        return Erased(lead_id, destroyed[lead_id], [lead_id])
    now = runtime.clock.now()
    await tx.connection.execute(FORGET_LINKS, [lead_id])
    await _destroy([lead_id], lead_id, actor, now, tx, runtime)
    return Erased(lead_id, now, [lead_id])


async def _destroy(  # noqa: PLR0913  # whose keys, and what is told and written about it
    lead_ids: list[LeadId], root: LeadId, actor: str, now: datetime, tx: Tx, runtime: Runtime
) -> None:
    for lead_id in lead_ids:
        await runtime.keys.destroy(tx, lead_id, now)
        tx.emit(lead_erased(lead_id, now))
    await tx.connection.execute(FORGET_ANSWERS, lead_ids)
    await tx.connection.execute(AUDIT, actor, root)


async def _ids_of(connection: Connection, members: list[LeadId]) -> list[LeadId]:
    return sorted(LeadId(row["lead_id"]) for row in await connection.fetch(IDS, members))


async def _is_known(connection: Connection, lead_id: LeadId) -> bool:
    if await queries.root_of(connection, lead_id) is not None:
        return True
    return bool(await connection.fetchval(KEY_EXISTS, lead_id))
