"""Leads as the API shows them."""

from collections.abc import Set as AbstractSet

from services.capture.errors import NoSuchLead
from services.capture.leads import queries
from services.capture.leads.domain import consent_now, profile_of, together
from services.capture.leads.handlers import person_since
from services.capture.leads.inputs import ConsentEntry, ConsentOut, LeadOut
from services.capture.leads.queries import Family
from services.capture.reading import looks_like_id
from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonErased


def known_lead_id(text: str) -> LeadId:
    """The lead id in a path. Raises NoSuchLead for what cannot be one."""
    if not looks_like_id(text):
        raise NoSuchLead(f"there is no lead {text[:40]!r}")
    return LeadId(text.lower())


async def lead_out(connection: Connection, lead_id: LeadId, off: AbstractSet[str] = frozenset()) -> LeadOut:
    """The profile of the person behind a lead id, without the built-ins that are `off`. NoSuchLead, PersonErased."""
    family = await family_of(connection, lead_id)
    root = family.root
    profile = profile_of(together((row.lead_id, row.statements) for row in family.rows), off)
    return LeadOut(
        lead_id=root.lead_id,
        email=profile.email,
        phone=profile.phone,
        external_ids=dict(profile.external_ids),
        first_name=profile.first_name,
        last_name=profile.last_name,
        company=profile.company,
        title=profile.title,
        country=profile.country,
        region=profile.region,
        industry=profile.industry,
        employees=profile.employees,
        annual_revenue=profile.annual_revenue,
        use_case=profile.use_case,
        attributes=dict(profile.attributes),
        derived=dict(profile.derived),
        consent=consent_now(await queries.consents_of(connection, sorted(family.members))),  # type: ignore[arg-type]  # texts from the ledger
        lead_ids=sorted(family.members),
        revision=root.revision,
        captured_at=person_since(family.rows),
        created_at=root.created_at,
        updated_at=max(row.updated_at for row in family.rows),
    )


async def consent_out(connection: Connection, lead_id: LeadId) -> ConsentOut:
    """What the person behind a lead id allows, with the ledger. Raises NoSuchLead, or PersonErased."""
    family = await family_of(connection, lead_id)
    members = sorted(family.members)
    now = consent_now(await queries.consents_of(connection, members))
    entries = [ConsentEntry(**dict(row)) for row in await queries.ledger_of(connection, members)]
    return ConsentOut(lead_id=family.root.lead_id, consent=now, entries=entries)  # type: ignore[arg-type]  # texts from the ledger


async def family_of(connection: Connection, lead_id: LeadId) -> Family:
    """The person behind a lead id. Raises NoSuchLead, or PersonErased."""
    root = await queries.root_of(connection, lead_id)
    family = root and (await queries.families_of(connection, [root])).get(root)
    if not family or (family.root.revision == 0 and family.root.erased_at is None):
        raise NoSuchLead(f"there is no lead {lead_id}")
    if family.root.erased_at is not None:
        raise PersonErased(f"the person behind lead {lead_id} was erased")
    return family
