"""What follows when the profile of a person is another one: account, likenesses, enrichment; and it is told.

However many persons, in a few statements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.capture.accounts import standings
from services.capture.accounts.domain import Clues, clues_of
from services.capture.accounts.matching import attach_leads
from services.capture.duplicates import queries as likenesses
from services.capture.duplicates.domain import keys_of
from services.capture.duplicates.handlers import note_likeness
from services.capture.enrichment import queries as enrichments
from services.capture.enrichment.document import ENRICHMENT
from services.capture.leads.domain import Profile
from services.capture.leads.telling import Cause, captured_draft
from shared.db import Connection, Tx
from shared.events import IdentifierKind
from shared.ids import LeadId
from shared.service import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A person whose profile is another one now, by the lead that stands for them.

    `before` is None of a new person, and after a merge or unmerge by hand. `merged` are the leads that stood for
    persons of their own until now.
    """

    lead_id: LeadId
    made_from: IdentifierKind
    revision: int
    before: Profile | None
    profile: Profile
    captured_at: datetime
    cause: Cause
    merged: tuple[LeadId, ...] = ()


async def tell_changes(changes: Sequence[Change], tx: Tx, runtime: Runtime) -> None:
    """Tell the profiles as they stand. The rows of the leads must be locked and saved."""
    if not changes:
        return
    if gone := [lead_id for change in changes for lead_id in change.merged]:
        await _stand_for_nobody(gone, tx.connection)
    clues = {change.lead_id: _clues(change.profile) for change in changes}
    as_before = {
        change.lead_id
        for change in changes
        if change.before is not None and not change.merged and _clues(change.before) == clues[change.lead_id]
    }
    accounts = await attach_leads(clues, changes[0].cause.received_at, tx, runtime, as_before=as_before)
    others_now = {
        change.lead_id: change.profile
        for change in changes
        if change.before is None or change.merged or keys_of(change.before) != keys_of(change.profile)
    }
    if others_now:
        new = {change.lead_id for change in changes if change.revision == 1}
        await note_likeness(others_now, tx.connection, runtime, new=new)
    drafts = [
        captured_draft(
            change.lead_id,
            change.made_from,
            change.revision,
            change.profile,
            change.captured_at,
            change.cause,
            accounts[change.lead_id],
        )
        for change in changes
    ]
    await runtime.keys.emit_drafts(tx, drafts)
    # What a provider said is no reason to ask again: whoever asked it goes on to those after it anyway.
    changed = {change.lead_id for change in changes if not change.cause.origin.startswith(ENRICHMENT)}
    if changed:
        await enrichments.schedule(tx.connection, sorted(changed), runtime.clock.now())


async def _stand_for_nobody(lead_ids: Sequence[LeadId], connection: Connection) -> None:
    """Leads that were merged away have no account and resemble nobody; what was chosen for them by hand is kept."""
    await standings.forget(connection, lead_ids)
    await likenesses.forget(connection, lead_ids)


def _clues(profile: Profile) -> Clues:
    return clues_of(profile.email, profile.company, profile.country, profile.phone)
