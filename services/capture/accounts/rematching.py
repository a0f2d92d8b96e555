"""Leads matched again, in the background: those that waited for an account, and those whose account is another now."""

from datetime import datetime, timedelta
from itertools import chain

from services.capture.accounts import standings
from services.capture.accounts.domain import changed_leads, clues_of
from services.capture.accounts.matching import match_leads
from services.capture.accounts.standings import By
from services.capture.duplicates.handlers import note_likeness
from services.capture.facts.domain import API
from services.capture.leads import queries as leads
from services.capture.leads.changes import Change, tell_changes
from services.capture.leads.domain import Profile, profile_of, together
from services.capture.leads.handlers import person_since
from services.capture.leads.queries import Family
from services.capture.leads.telling import Cause
from shared.db import Tx
from shared.ids import LeadId
from shared.service import Runtime

AT_ONCE = 200
AGAIN = timedelta(milliseconds=200)


async def rematch_leads(runtime: Runtime) -> timedelta | None:
    """Match the leads that were asked for, batch by batch; each batch commits, so that a restart goes on from there."""
    while True:
        async with runtime.database.reading() as connection:
            due = await standings.due_rematches(connection, AT_ONCE)
            if not due:
                return AGAIN if await standings.waiting(connection) else None
            by = due[0].by
            alike = [one for one in due if one.by == by]
            found = await standings.leads_to_match(connection, alike, AT_ONCE)
        lead_ids = sorted(set(chain(*found.values())))
        if lead_ids:
            async with runtime.database.transaction() as tx:
                await _match_again(lead_ids, by, runtime.clock.now(), tx, runtime)
        async with runtime.database.reading() as connection:
            ended = [rematch for rematch, theirs in found.items() if len(theirs) < AT_ONCE]
            if ended:
                await standings.done(connection, ended)
            for rematch, theirs in found.items():
                if len(theirs) == AT_ONCE:
                    await standings.get_on(connection, rematch, theirs[-1])


async def _match_again(lead_ids: list[LeadId], by: By, now: datetime, tx: Tx, runtime: Runtime) -> None:
    connection = tx.connection
    locked = await leads.lock_roots(connection, lead_ids)
    families = await leads.families_of(connection, runtime.keys, sorted(locked))
    known = {
        lead_id: family
        for lead_id, family in families.items()
        if family.root.erased_at is None and family.root.revision > 0
    }
    profiles = {
        lead_id: profile_of(
            together((row.lead_id, row.statements) for row in family.rows), runtime.settings.enrichment_off
        )
        for lead_id, family in known.items()
    }
    clues = {
        lead_id: clues_of(profile.email, profile.company, profile.country, profile.phone)
        for lead_id, profile in profiles.items()
    }
    before, after = await match_leads(clues, now, tx, runtime)
    changed = changed_leads(before, after)
    if by == "every":
        await note_likeness(profiles, connection, runtime, new=frozenset())
    told_before = {lead_id: standing.match.account_id for lead_id, standing in before.items()}
    moved = [one.lead_id for one in changed if told_before.get(one.lead_id) != one.match.account_id]
    await standings.save(connection, changed, before)
    if moved:
        await leads.raise_revisions(connection, moved)
        changes = [_change(known[lead_id], profiles[lead_id], now) for lead_id in sorted(moved)]
        await tell_changes(changes, tx, runtime)


def _change(family: Family, profile: Profile, now: datetime) -> Change:
    return Change(
        lead_id=family.root.lead_id,
        made_from=family.root.made_from,
        revision=family.root.revision + 1,
        before=None,
        profile=profile,
        captured_at=person_since(family.rows),
        cause=Cause(API, now, now),
    )
