"""Forgetting a person: their keys are destroyed, and with them every copy of what was personal."""

from dataclasses import dataclass
from datetime import datetime

from services.capture.accounts.forgetting import forget_accounts
from services.capture.deals import queries as deals
from services.capture.duplicates import queries as likenesses
from services.capture.enrichment import queries as enrichments
from services.capture.erasures.domain import Wish, traces_of
from services.capture.erasures.handlers import open_receipt, report
from services.capture.erasures.queries import ids_of, receipt_of
from services.capture.errors import Contended, NoSuchLead
from services.capture.leads import queries
from services.capture.leads.identifying import Named, identify
from services.capture.leads.queries import Family
from services.capture.leads.telling import lead_erased
from shared.db import Connection, Tx
from shared.ids import LeadId
from shared.service import Runtime
from shared.web import forget_answers

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
UPDATE leads SET statements = '{}', sealed = NULL, origin = '', erased_at = $2, updated_at = $2 WHERE lead_id = ANY($1)
"""
FORGET_IDENTIFIERS = "DELETE FROM identifiers WHERE own_id = ANY($1)"
FORGET_LINKS = "DELETE FROM links WHERE lead_id = ANY($1) OR anonymous_id = ANY($1)"
FORGET_EXPORTS = "DELETE FROM person_exports WHERE lead_id = ANY($1)"
FORGET_EVIDENCE = """
UPDATE consent_entries SET reason = NULL, evidence = NULL
WHERE lead_id = ANY($1) AND (reason IS NOT NULL OR evidence IS NOT NULL)
"""
FORGET_SUBMISSIONS = "UPDATE form_submissions SET sealed = NULL, fingerprint = '' WHERE lead_id = ANY($1)"
FORGET_OPTINS = "UPDATE optins SET sealed = NULL, address_hash = '' WHERE lead_id = ANY($1)"
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, 'lead.erased', $2, $3)"
NAMING = ("email", "phone")


@dataclass(frozen=True, slots=True)
class Erased:
    """Who was forgotten, and all ids that this made unreadable. `receipt_id` is None of one forgotten without."""

    lead_id: LeadId
    erased_at: datetime
    lead_ids: list[LeadId]
    receipt_id: str | None


async def erase(lead_id: LeadId, wish: Wish, tx: Tx, runtime: Runtime) -> Erased:
    """Forget the person behind a lead id, whatever the id is of: a lead, one merged away, an identifier, a browser.

    All their ids go together: of merged leads, of identifiers, and of browsers they used, also shared ones; facts keep
    their ids and so counts and credit stay. Erasing twice changes nothing. Raises NoSuchLead for an id nobody has.
    """
    connection = tx.connection
    root = await queries.root_of(connection, lead_id)
    if root is None:
        return await _erase_known_by_touches(lead_id, wish, tx, runtime)
    if not await queries.lock_roots(connection, [root]):
        raise Contended("somebody else merged this lead just now")
    erased_at = await connection.fetchval(ERASED_AT, root)
    if erased_at is not None:
        return await _erased_before(root, erased_at, connection)
    now = runtime.clock.now()
    family = (await queries.families_of(connection, runtime.keys, [root]))[root]
    members = sorted(family.members)
    receipt_id = await open_receipt(root, now, wish, traces_in(family), tx, runtime)
    assert receipt_id is not None, "the row of the lead is locked"
    lead_ids = await _ids_of(connection, members)
    await _destroy(lead_ids, root, receipt_id, wish.actor, now, tx, runtime)
    await connection.execute(STRIP, members, now)
    await connection.execute(FORGET_IDENTIFIERS, lead_ids)
    await connection.execute(FORGET_LINKS, lead_ids)
    await connection.execute(FORGET_EVIDENCE, lead_ids)
    await forget_accounts(members, now, tx, runtime)
    await likenesses.forget(connection, members)
    await deals.forget(connection, lead_ids)
    await connection.execute(FORGET_SUBMISSIONS, lead_ids)
    await connection.execute(FORGET_OPTINS, lead_ids)
    await connection.execute(FORGET_EXPORTS, lead_ids)
    return Erased(root, now, lead_ids, receipt_id)


async def erase_named(named: Named, stored_at: datetime, wish: Wish, tx: Tx, runtime: Runtime) -> Erased | None:
    """Forget whom a source passes on the wish of; None if nobody here is known by these identifiers."""
    identified = await identify(tx.connection, runtime.ids, named, stored_at)
    erased = None
    for identifier in identified.strong if identified else ():
        if await _is_known(tx.connection, identifier.own_id):
            erased = await erase(identifier.own_id, wish, tx, runtime)
    return erased


async def erase_browser(lead_id: LeadId, at: datetime, person_id: LeadId, tx: Tx, runtime: Runtime) -> None:
    """Forget a browser that was linked to somebody in the moment of their erasure: it is part of that."""
    receipt_id = await receipt_of(tx.connection, person_id)
    if receipt_id is not None:
        await report(lead_id, receipt_id, at, tx)
    await runtime.keys.destroy(tx, lead_id, at)
    tx.emit(lead_erased(lead_id, at, receipt_id, person_id))


async def _erase_known_by_touches(lead_id: LeadId, wish: Wish, tx: Tx, runtime: Runtime) -> Erased:
    """An id that only touches came with has no row here, but a key."""
    if not await _is_known(tx.connection, lead_id):
        raise NoSuchLead(f"there is no lead {lead_id}")
    now = runtime.clock.now()
    destroyed = await queries.destroyed_at(tx.connection, [lead_id])
    receipt_id = None if destroyed else await open_receipt(lead_id, now, wish, (), tx, runtime)
    if receipt_id is None:
        destroyed = destroyed or await queries.destroyed_at(tx.connection, [lead_id])
        return await _erased_before(lead_id, destroyed[lead_id], tx.connection)
    await _destroy([lead_id], lead_id, receipt_id, wish.actor, now, tx, runtime)
    await tx.connection.execute(FORGET_LINKS, [lead_id])
    return Erased(lead_id, now, [lead_id], receipt_id)


async def _erased_before(lead_id: LeadId, at: datetime, connection: Connection) -> Erased:
    receipt_id = await receipt_of(connection, lead_id)
    lead_ids = (await ids_of(connection, [receipt_id]))[receipt_id] if receipt_id else [lead_id]
    return Erased(lead_id, at, lead_ids, receipt_id)


async def _destroy(  # noqa: PLR0913  # whose keys, and what is told and written about it
    lead_ids: list[LeadId], root: LeadId, receipt_id: str, actor: str, now: datetime, tx: Tx, runtime: Runtime
) -> None:
    for lead_id in lead_ids:
        await report(lead_id, receipt_id, now, tx)
        await runtime.keys.destroy(tx, lead_id, now)
        tx.emit(lead_erased(lead_id, now, receipt_id, root))
    await forget_answers(tx.connection, lead_ids)
    await enrichments.forget(tx.connection, lead_ids)
    await tx.connection.execute(AUDIT, actor, root, {"receipt_id": receipt_id})


def traces_in(family: Family) -> tuple[str, ...]:
    """What would tell who the person is, in whatever text."""
    told = [statement.value for row in family.rows for name, statement in row.statements.items() if name in NAMING]
    return traces_of(told)


async def _ids_of(connection: Connection, members: list[LeadId]) -> list[LeadId]:
    return sorted(LeadId(row["lead_id"]) for row in await connection.fetch(IDS, members))


async def _is_known(connection: Connection, lead_id: LeadId) -> bool:
    if await queries.root_of(connection, lead_id) is not None:
        return True
    return bool(await connection.fetchval(KEY_EXISTS, lead_id))
