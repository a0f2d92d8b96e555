"""Leads as the API shows them."""

from services.capture.consent.queries import consents_of
from services.capture.erasures.inputs import Receipt
from services.capture.erasures.views import receipt
from services.capture.errors import NoSuchLead
from services.capture.leads import queries
from services.capture.leads.domain import profile_of, together
from services.capture.leads.erasure import Erased
from services.capture.leads.handlers import person_since
from services.capture.leads.inputs import LeadOut
from services.capture.leads.queries import Family
from shared.consents import latest_consents, marketing_words
from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonErased
from shared.secrets import Secrets


async def lead_out(connection: Connection, lead_id: LeadId) -> LeadOut:
    """The profile of the person behind a lead id. Raises NoSuchLead, or PersonErased."""
    family = await family_of(connection, lead_id)
    root = family.root
    profile = profile_of(together((row.lead_id, row.statements) for row in family.rows))
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
        consent=marketing_words(latest_consents(await consents_of(connection, sorted(family.members)))),
        lead_ids=sorted(family.members),
        revision=root.revision,
        captured_at=person_since(family.rows),
        created_at=root.created_at,
        updated_at=max(row.updated_at for row in family.rows),
    )


async def receipt_of_erasure(connection: Connection, secrets: Secrets, erased: Erased) -> Receipt:
    """The receipt of an erasure; of one from before there were receipts only that it is done."""
    if erased.receipt_id is not None:
        return await receipt(connection, secrets, erased.receipt_id)
    return Receipt(
        receipt_id=None,
        lead_id=erased.lead_id,
        lead_ids=erased.lead_ids,
        erased_at=erased.erased_at,
        state="done",
        services={},
        remains=[],
    )


async def family_of(connection: Connection, lead_id: LeadId) -> Family:
    """All leads of the person behind a lead id. Raises NoSuchLead, or PersonErased."""
    root = await queries.root_of(connection, lead_id)
    family = root and (await queries.families_of(connection, [root])).get(root)
    if not family or (family.root.revision == 0 and family.root.erased_at is None):
        raise NoSuchLead(f"there is no lead {lead_id}")
    if family.root.erased_at is not None:
        raise PersonErased(f"the person behind lead {lead_id} was erased")
    return family
