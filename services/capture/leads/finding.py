"""Whom an email address names."""

from typing import Annotated

from fastapi import Query

from services.capture.errors import NoSuchLead
from services.capture.leads import queries
from services.capture.leads.identifying import Named, identify
from shared.db import Connection
from shared.emails import Email
from shared.identity import LeadIds
from shared.ids import LeadId

EmailQuery = Annotated[Email, Query(description="Instead of a lead id")]


async def lead_with_address(connection: Connection, ids: LeadIds, email: str) -> LeadId:
    """The person known by a normalised address. Raises NoSuchLead."""
    identified = await identify(connection, ids, Named(email=email), None)
    assert identified is not None, "nothing was stored that could be older than an erasure"
    owners = await queries.owners_of(connection, [identifier.own_id for identifier in identified.strong])
    for lead_id in owners.values():
        return lead_id
    raise NoSuchLead("nobody is known by this address")
