"""Somebody asks what is known of a person: every service is asked, and answers are kept until all are there."""

from datetime import timedelta

from services.capture.errors import NoSuchExport, NoSuchLead
from services.capture.leads.views import family_of
from services.capture.person_exports import queries
from services.capture.person_exports.queries import ExportRow
from shared.db import Connection, Tx
from shared.events import TOPICS, ExportAnswered, ExportRequested
from shared.exports import Rows, answer_of, chunks_of, opened
from shared.ids import EventId, LeadId, derived_id, new_id
from shared.personal import Draft, PersonKeys
from shared.service import Runtime

KEPT_FOR = timedelta(days=7)
SERVICES = tuple(sorted(next(topic.writers for topic in TOPICS if topic.name == "exports")))


async def request_export(lead_id: LeadId, actor: str, tx: Tx, runtime: Runtime) -> ExportRow:
    """Ask every service what it holds of the person behind an id, and keep at once what capture itself does.

    Raises NoSuchLead for an id that nobody has, PersonErased.
    """
    now = runtime.clock.now()
    root, members = await _whom(lead_id, tx.connection, runtime.keys)
    lead_ids = sorted({*members, *await queries.identifiers_of(tx.connection, members)})
    export = ExportRow(new_id(), root, lead_ids, now, now + KEPT_FOR)
    await queries.open_export(tx.connection, export)
    asked = ExportRequested(
        event_id=EventId(derived_id("export-requested", export.export_id)),
        lead_id=root,
        occurred_at=now,
        received_at=now,
        export_id=export.export_id,
        lead_ids=lead_ids,
    )
    tx.emit(asked)
    await _keep_own(asked, members, tx, runtime)
    await tx.connection.execute(queries.AUDIT, actor, root, {"export_id": export.export_id})
    return export


async def _whom(lead_id: LeadId, connection: Connection, keys: PersonKeys) -> tuple[LeadId, list[LeadId]]:
    """The lead that stands for a person, and all their leads; an id that only touches came with stands for itself."""
    try:
        family = await family_of(connection, lead_id, keys)
    except NoSuchLead:
        if not await queries.has_key(connection, lead_id):
            raise
        return lead_id, [lead_id]
    return family.root.lead_id, sorted(family.members)


async def _keep_own(asked: ExportRequested, members: list[LeadId], tx: Tx, runtime: Runtime) -> None:
    held: dict[str, Rows] = {}
    for name, statement in queries.HELD.items():
        rows = [dict(row) for row in await tx.connection.fetch(statement, members)]
        held[name] = await opened(tx.connection, rows, runtime.keys)
    for row in held["leads"]:
        row["statements"] = row.pop("sealed") or row["statements"]
    for index, chunk in enumerate(chunks := chunks_of(held)):
        draft = Draft(ExportAnswered(**answer_of(asked, "capture", index, len(chunks))), chunk)
        (answer,) = await runtime.keys.seal_drafts(tx, [draft])
        assert isinstance(answer, ExportAnswered), "a sealed fact is of the kind of its draft"
        await queries.keep(tx.connection, answer)


async def on_answered(event: ExportAnswered, tx: Tx) -> None:
    """Keep a piece of what a service answered."""
    await queries.keep(tx.connection, event)


async def find_export(connection: Connection, export_id: str, runtime: Runtime) -> ExportRow:
    """An export. Raises NoSuchExport for one that is gone, too."""
    found = await queries.export(connection, export_id, runtime.clock.now())
    if found is None:
        raise NoSuchExport(f"there is no export {export_id[:64]}, or it is over 7 days old, or the person was erased")
    return found


async def drop_expired(runtime: Runtime) -> timedelta | None:
    """Drop exports whose time is over."""
    async with runtime.database.reading() as connection:
        await queries.drop_expired(connection, runtime.clock.now())
    return None
