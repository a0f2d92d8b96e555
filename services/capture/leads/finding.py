"""Whom identifiers name."""

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


async def known_by(connection: Connection, ids: LeadIds, named: Named) -> list[LeadId]:
    """The persons known by these identifiers."""
    identified = await identify(connection, ids, named, None)
    assert identified is not None, "nothing was stored that could be older than an erasure"
    anonymous = [identified.anonymous] if identified.anonymous else []
    own_ids = [identifier.own_id for identifier in (*identified.strong, *anonymous)]
    roots = set((await queries.owners_of(connection, own_ids)).values())
    for identifier in anonymous:
        linked = {lead_id for _, lead_id in await queries.links_of(connection, identifier.own_id)}
        roots |= {root for lead_id in linked if (root := await queries.root_of(connection, lead_id))}
    return sorted(roots)


async def lead_with_address(connection: Connection, ids: LeadIds, email: str) -> LeadId:
    """The person known by a normalised address. Raises NoSuchLead."""
    for lead_id in await known_by(connection, ids, Named(email=email)):
        return lead_id
    raise NoSuchLead("nobody is known by this address")
