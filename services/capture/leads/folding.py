"""What Kafka remembers of this service's own decisions: normally all known, needed when an older database came back."""

from collections.abc import Sequence

from services.capture.accounts import standings
from services.capture.accounts.forgetting import forget_accounts
from services.capture.duplicates import queries as likenesses
from services.capture.enrichment import queries as enrichments
from services.capture.enrichment.builtin import derive
from services.capture.erasures.handlers import reopen_receipt
from services.capture.leads import queries
from services.capture.leads.domain import ATTRIBUTE, EXTERNAL, FIELDS, Identifier, Statement
from services.capture.leads.erasure import (
    FORGET_EVIDENCE,
    FORGET_EXPORTS,
    FORGET_LINKS,
    STRIP,
    erase_browser,
    traces_in,
)
from shared.db import Tx
from shared.events import (
    IdentifierKind,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadPersonal,
    LeadUnmerged,
)
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.service import Runtime
from shared.web import forget_answers

BEHIND = """
SELECT told.lead_id FROM unnest($1::text[], $2::integer[]) AS told (lead_id, revision)
LEFT JOIN leads USING (lead_id)
WHERE leads.lead_id IS NULL OR (leads.revision < told.revision AND leads.erased_at IS NULL)
"""
RESTORE = """
INSERT INTO leads AS known (lead_id, made_from, revision, sealed, origin, captured_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (lead_id) DO UPDATE SET revision = excluded.revision, made_from = excluded.made_from,
    sealed = excluded.sealed, statements = '{}',
    captured_at = least(known.captured_at, excluded.captured_at), updated_at = clock_timestamp()
WHERE known.revision < excluded.revision AND known.erased_at IS NULL
"""
PLACE = """
INSERT INTO leads (lead_id, made_from, origin, captured_at) VALUES ($1, 'external', '', $2) ON CONFLICT DO NOTHING
"""
REPARENT = """
UPDATE leads SET merged_into = $2, alias_at = $3 WHERE lead_id = $1 AND (alias_at IS NULL OR alias_at < $3)
"""
ERASED_AT = "SELECT erased_at FROM leads WHERE lead_id = $1"
IS_KNOWN = "SELECT 1 FROM leads WHERE lead_id = $1 AND erased_at IS NULL"
FORGET_IDENTIFIERS = "DELETE FROM identifiers WHERE lead_id = $1 OR own_id = $1"
IS_MISSING = "SELECT NOT EXISTS (SELECT 1 FROM identifiers WHERE own_id = $1)"


async def on_captured(events: Sequence[LeadCaptured], tx: Tx, runtime: Runtime) -> None:
    """Bring back leads of which this database knows nothing, or less."""
    newest = {event.lead_id: event for event in sorted(events, key=lambda event: event.revision)}
    lead_ids = sorted(newest)
    revisions = [newest[lead_id].revision for lead_id in lead_ids]
    behind = [LeadId(row["lead_id"]) for row in await tx.connection.fetch(BEHIND, lead_ids, revisions)]
    if not behind:
        return
    blocks = [(lead_id, newest[lead_id].personal) for lead_id in behind]
    opened = await runtime.keys.open_many(tx.connection, blocks)
    await standings.ask_again(tx.connection, [("every", "")])
    for lead_id, personal in zip(behind, opened, strict=True):
        if personal is not None:
            await _restore(newest[lead_id], LeadPersonal.model_validate_json(personal), tx, runtime.keys)


async def _restore(event: LeadCaptured, personal: LeadPersonal, tx: Tx, keys: PersonKeys) -> None:
    told = {name: getattr(source, name) for source in (event, personal) for name in FIELDS if hasattr(source, name)}
    told |= {f"{ATTRIBUTE}{name}": value for name, value in personal.attributes.items()}
    for each in derive({name: value for name, value in told.items() if value is not None}):
        if told.get(each.field) == each.value:
            del told[each.field]  # it follows from the rest, and nobody told it
    told |= {f"{EXTERNAL}{name}": value for name, value in personal.external_ids.items()}
    await queries.lock_roots(tx.connection, [event.lead_id])
    families = await queries.families_of(tx.connection, keys, [event.lead_id])
    known = families[event.lead_id].root.statements if families else {}
    statements = dict(known) | {
        name: Statement(value, event.occurred_at, event.origin) for name, value in told.items() if value is not None
    }
    made_from: IdentifierKind = event.made_from or "external"
    block = (await queries.sealed(tx, keys, {event.lead_id: statements}, event.received_at))[event.lead_id]
    await tx.connection.execute(
        RESTORE, event.lead_id, made_from, event.revision, block, event.origin, event.captured_at
    )
    await queries.attach(tx.connection, event.lead_id, [Identifier(made_from, event.lead_id)])


async def on_merged(event: LeadMerged | LeadUnmerged, tx: Tx) -> None:
    """Keep who is whom; the newest merge or unmerge of a lead counts."""
    merged = isinstance(event, LeadMerged)
    if isinstance(event, LeadMerged) and event.identifier is not None:
        identifier = Identifier(event.identifier, event.from_lead_id)
        destroyed = await queries.destroyed_at(tx.connection, [event.from_lead_id])
        if not destroyed and await tx.connection.fetchval(IS_MISSING, event.from_lead_id):
            await tx.connection.execute(PLACE, event.lead_id, event.occurred_at)
            await queries.attach(tx.connection, event.lead_id, [identifier])
        return
    if merged:
        await tx.connection.execute(PLACE, event.from_lead_id, event.occurred_at)
    await tx.connection.execute(REPARENT, event.from_lead_id, event.lead_id if merged else None, event.occurred_at)


async def on_linked(event: IdentityLinked, tx: Tx, runtime: Runtime) -> None:
    """Keep to whom a browser belonged; of a person who was erased since then, forget the browser too."""
    root = await queries.root_of(tx.connection, event.lead_id) or event.lead_id
    erased_at = await tx.connection.fetchval(ERASED_AT, root)
    destroyed = await queries.destroyed_at(tx.connection, [event.lead_id, event.anonymous_lead_id])
    erased_at = erased_at or destroyed.get(event.lead_id)
    if erased_at is None:
        await queries.link(tx.connection, event.anonymous_lead_id, event.occurred_at, event.lead_id)
    elif event.anonymous_lead_id not in destroyed and event.received_at <= erased_at:
        await erase_browser(event.anonymous_lead_id, erased_at, root, tx, runtime)


async def on_erased(event: LeadErased, tx: Tx, runtime: Runtime) -> None:
    """Strip a lead that an older database brought back, and open its receipt again; its services' reports follow."""
    connection = tx.connection
    traces: tuple[str, ...] = ()
    if await connection.fetchval(IS_KNOWN, event.lead_id):
        family = (await queries.families_of(connection, runtime.keys, [event.lead_id]))[event.lead_id]
        traces = traces_in(family)
        await connection.execute(STRIP, [event.lead_id], event.occurred_at)
    if event.receipt_id is not None and event.person_id is not None:
        await reopen_receipt(event.receipt_id, event.person_id, event.lead_id, event.occurred_at, traces, tx, runtime)
    await runtime.keys.fold_keys(connection, [(event.lead_id, None)])
    await connection.execute(FORGET_IDENTIFIERS, event.lead_id)
    await connection.execute(FORGET_LINKS, [event.lead_id])
    await connection.execute(FORGET_EVIDENCE, [event.lead_id])
    await connection.execute(FORGET_EXPORTS, [event.lead_id])
    await forget_accounts([event.lead_id], event.occurred_at, tx, runtime)
    await likenesses.forget(connection, [event.lead_id])
    await enrichments.forget(connection, [event.lead_id])
    await forget_answers(connection, [event.lead_id])
