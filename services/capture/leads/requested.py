"""What sequences ask to be said about leads, applied as a call of the source `nurture` would be."""

from services.capture.errors import NoSuchLead
from services.capture.leads import queries
from services.capture.leads.changes import Change, tell_changes
from services.capture.leads.domain import learn, profile_of, together
from services.capture.leads.handlers import person_since
from services.capture.leads.inputs import statements_of
from services.capture.leads.merging import locked_person
from services.capture.leads.telling import Cause
from shared.db import Tx
from shared.events import LeadUpdateRequested, UpdatePersonal
from shared.service import Runtime
from shared.telemetry import log

ORIGIN = "nurture"
ATTRIBUTE = "attributes."


async def on_update_requested(event: LeadUpdateRequested, tx: Tx, runtime: Runtime) -> None:
    """Say what a step says of a lead. Of an erased person nothing is said; what was said later stays."""
    (text,) = await runtime.keys.open_many(tx.connection, [(event.lead_id, event.personal)])
    if text is None:
        return
    wanted = UpdatePersonal.model_validate_json(text).fields
    plain = {name: value for name, value in wanted.items() if not name.startswith(ATTRIBUTE)}
    own = {name.removeprefix(ATTRIBUTE): value for name, value in wanted.items() if name.startswith(ATTRIBUTE)}
    told = dict(statements_of(plain, own, {}))
    try:
        family = await locked_person(event.lead_id, tx.connection, runtime.keys)
    except NoSuchLead:
        log.info("lead_update_for_nobody", lead_id=event.lead_id)
        return
    root, off = family.root, runtime.settings.enrichment_off
    cause = Cause(ORIGIN, event.occurred_at, event.received_at)
    learnt = learn(root.statements, told, event.occurred_at, ORIGIN)
    if learnt == root.statements:
        return
    before = {row.lead_id: row.statements for row in family.rows}
    known = profile_of(together(before.items()), off)
    profile = profile_of(together((before | {root.lead_id: learnt}).items()), off)
    revision = root.revision + (profile != known)
    await queries.save_lead(tx, runtime.keys, root.lead_id, learnt, root.captured_at, revision, event.received_at)
    if profile != known:
        change = Change(
            lead_id=root.lead_id,
            made_from=root.made_from,
            revision=revision,
            before=known,
            profile=profile,
            captured_at=person_since(family.rows),
            cause=cause,
        )
        await tell_changes([change], tx, runtime)
