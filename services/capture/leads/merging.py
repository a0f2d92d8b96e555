"""Merging and unmerging by hand: somebody knows better than the identifiers."""

from services.capture.errors import Contended, LeadNotMerged, NoSuchLead, SamePerson
from services.capture.leads import queries
from services.capture.leads.changes import Change, tell_changes
from services.capture.leads.domain import profile_of, survivor_of, together
from services.capture.leads.handlers import merge, moment_after, person_since
from services.capture.leads.queries import Family
from services.capture.leads.telling import Cause, lead_unmerged
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.service import Runtime


async def merge_by_hand(  # noqa: PLR0913  # two leads, and who is to stand for both
    lead_id: LeadId, other_id: LeadId, into: LeadId | None, cause: Cause, tx: Tx, runtime: Runtime
) -> LeadId:
    """Let two leads be one person. `into` picks who stands for both; else it is the same whoever is named first."""
    connection = tx.connection
    families = {one.root.lead_id: one for one in await locked_persons(lead_id, other_id, connection, runtime.keys)}
    persons = await queries.persons_of(connection, families)
    survivor = survivor_of(persons.values()).lead_id
    if into is not None:
        survivor = await _root(connection, into)
        if survivor not in families:
            fault = FieldError("/into", "is neither of the two leads")
            raise Invalid("look at /into", [fault])
    gone = next(root for root in families if root != survivor)
    await queries.reunite(connection, sorted(families[gone].members | families[survivor].members))
    await merge(families[gone], families[survivor], tx, cause.received_at)
    await tell_profile(survivor, cause, tx, runtime, merged=(gone,))
    return survivor


async def unmerge_by_hand(lead_id: LeadId, cause: Cause, tx: Tx, runtime: Runtime) -> LeadId:
    """Undo the merge of a lead: it stands for itself again, with all that was told about it, and is kept apart.

    Answers the lead that it was merged into.
    """
    connection = tx.connection
    root = await _root(connection, lead_id)
    family = (await _locked(connection, runtime.keys, [root]))[root]
    row = next(row for row in family.rows if row.lead_id == lead_id) if lead_id in family.members else None
    if row is None or row.merged_into is None:
        raise LeadNotMerged(f"{lead_id} is not merged into another lead")
    at = moment_after(row, cause.received_at)
    await queries.set_parent(connection, lead_id, None, at)
    await queries.tell_apart(connection, lead_id, row.merged_into)
    tx.emit(lead_unmerged(lead_id, row.merged_into, at))
    for changed in (root, lead_id):
        await tell_profile(changed, cause, tx, runtime)
    return root


async def tell_profile(
    lead_id: LeadId, cause: Cause, tx: Tx, runtime: Runtime, merged: tuple[LeadId, ...] = ()
) -> None:
    """Tell the profile of a person whose leads, or whose account, changed."""
    family = (await queries.families_of(tx.connection, runtime.keys, [lead_id]))[lead_id]
    root = family.root
    revision = root.revision + 1
    await queries.raise_revision(tx.connection, lead_id, revision)
    statements = together((row.lead_id, row.statements) for row in family.rows)
    profile = profile_of(statements, runtime.settings.enrichment_off)
    change = Change(
        lead_id=lead_id,
        made_from=root.made_from,
        revision=revision,
        before=None,
        profile=profile,
        captured_at=person_since(family.rows),
        cause=cause,
        merged=merged,
    )
    await tell_changes([change], tx, runtime)


async def locked_person(lead_id: LeadId, connection: Connection, keys: PersonKeys) -> Family:
    """The person behind a lead id, locked. Raises NoSuchLead."""
    root = await _root(connection, lead_id)
    return (await _locked(connection, keys, [root]))[root]


async def locked_persons(one: LeadId, other: LeadId, connection: Connection, keys: PersonKeys) -> tuple[Family, Family]:
    """The two persons behind lead ids, locked. Raises NoSuchLead, SamePerson."""
    roots = [await _root(connection, one), await _root(connection, other)]
    if roots[0] == roots[1]:
        raise SamePerson(f"{one} and {other} are one person already: {roots[0]}")
    families = await _locked(connection, keys, roots)
    return families[roots[0]], families[roots[1]]


async def _root(connection: Connection, lead_id: LeadId) -> LeadId:
    root = await queries.root_of(connection, lead_id)
    if root is None:
        raise NoSuchLead(f"there is no lead {lead_id}")
    return root


async def _locked(connection: Connection, keys: PersonKeys, roots: list[LeadId]) -> dict[LeadId, Family]:
    if await queries.lock_roots(connection, roots) != set(roots):
        raise Contended("somebody else merged these leads just now")
    families = await queries.families_of(connection, keys, roots)
    for root, family in families.items():
        if family.root.erased_at is not None:
            raise NoSuchLead(f"the person behind lead {root} was erased")
    return families
