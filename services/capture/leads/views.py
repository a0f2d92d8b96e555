"""Leads as the API shows them."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import chain

import asyncpg

from services.capture.accounts import standings
from services.capture.consent.queries import consents_of_each
from services.capture.erasures.inputs import Receipt
from services.capture.erasures.views import receipt
from services.capture.errors import NoSuchLead
from services.capture.leads import queries
from services.capture.leads.domain import Told, profile_of, ranked, together, why_it_counts
from services.capture.leads.erasure import Erased
from services.capture.leads.handlers import person_since
from services.capture.leads.inputs import (
    FieldOut,
    FieldsOut,
    FieldValueOut,
    LeadAccountOut,
    LeadOut,
)
from services.capture.leads.queries import Family, LeadRow
from shared.consents import Consent, latest_consents, marketing_words
from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonErased, PersonKeys
from shared.secrets import Secrets
from shared.service import Runtime


async def lead_out(connection: Connection, lead_id: LeadId, runtime: Runtime) -> LeadOut:
    """The profile of the person behind a lead id. Raises NoSuchLead, or PersonErased."""
    root = (await family_of(connection, lead_id, runtime.keys)).root.lead_id
    return (await leads_out(connection, [root], runtime))[root]


async def leads_out(connection: Connection, lead_ids: Sequence[LeadId], runtime: Runtime) -> dict[LeadId, LeadOut]:
    """The profiles of known persons by the ids of leads, those merged away too, in a few statements."""
    off = runtime.settings.enrichment_off
    families = await queries.families_of(connection, runtime.keys, lead_ids)
    plain = {lead_id: family for lead_id, family in families.items() if _stands_for_somebody(family.root)}
    members = sorted({member for family in plain.values() for member in family.members})
    accounts = await standings.shown(connection, lead_ids)
    words = await consents_of_each(connection, members)
    said = {lead_id: [*chain(*(words.get(one, ()) for one in family.members))] for lead_id, family in plain.items()}
    shown = {lead_id: _shown(family, accounts.get(lead_id), said[lead_id], off) for lead_id, family in plain.items()}
    return shown | {
        lead_id: await lead_out(connection, lead_id, runtime) for lead_id in lead_ids if lead_id not in plain
    }


def _stands_for_somebody(row: LeadRow) -> bool:
    return row.merged_into is None and row.erased_at is None and row.revision > 0


def _shown(family: Family, account: asyncpg.Record | None, words: Sequence[Consent], off: AbstractSet[str]) -> LeadOut:
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
        consent=marketing_words(latest_consents(words)),
        account=LeadAccountOut(**dict(account)) if account else None,
        lead_ids=sorted(family.members),
        revision=root.revision,
        captured_at=person_since(family.rows),
        created_at=root.created_at,
        updated_at=max(row.updated_at for row in family.rows),
    )


async def fields_out(connection: Connection, lead_id: LeadId, keys: PersonKeys) -> FieldsOut:
    """Where each field of a person's profile comes from. Raises NoSuchLead, or PersonErased."""
    family = await family_of(connection, lead_id, keys)
    fields = {
        name: FieldOut(
            **_value(told[0]).model_dump(),
            rule=why_it_counts(told),
            lost=[_value(each) for each in told[1:]],
        )
        for name, told in ranked((row.lead_id, row.statements) for row in family.rows).items()
    }
    return FieldsOut(lead_id=family.root.lead_id, fields=fields)


def _value(told: Told) -> FieldValueOut:
    lead_id, statement = told
    return FieldValueOut(
        value=statement.value,
        at=statement.at,
        origin=statement.origin,
        confidence=statement.confidence,
        lead_id=lead_id,
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


async def family_of(connection: Connection, lead_id: LeadId, keys: PersonKeys) -> Family:
    """All leads of the person behind a lead id. Raises NoSuchLead, or PersonErased."""
    root = await queries.root_of(connection, lead_id)
    family = root and (await queries.families_of(connection, keys, [root])).get(root)
    if not family or (family.root.revision == 0 and family.root.erased_at is None):
        raise NoSuchLead(f"there is no lead {lead_id}")
    if family.root.erased_at is not None:
        raise PersonErased(f"the person behind lead {lead_id} was erased")
    return family
