"""Parameters of paths and queries, checked at the door."""

from typing import Annotated

from fastapi import Path, Query

from services.routing.errors import NoSuchLead, NoSuchRep
from shared.db import Connection
from shared.emails import parse_email
from shared.errors import FieldError, Invalid
from shared.identity import find_by_email
from shared.ids import LeadId
from shared.service import Runtime

_PRINTABLE = r"^[\x21-\x7e]{1,200}$"
PathId = Annotated[str, Path(pattern=_PRINTABLE)]
QueryId = Annotated[str | None, Query(pattern=_PRINTABLE)]
QueryEmail = Annotated[str | None, Query(max_length=320, description="Instead of a lead id")]


def address(email: str) -> str:
    """The normalised address of an `?email=`. Raises Invalid."""
    parsed = parse_email(email)
    if parsed is None:
        raise Invalid("look at query:email", [FieldError("query:email", "is not an email address")])
    return parsed


async def lead_asked_for(
    connection: Connection, runtime: Runtime, lead_id: str | None, email: str | None
) -> LeadId | None:
    """The lead that a request names by id or by address; None when by neither. Raises Invalid for both."""
    if lead_id is not None and email is not None:
        raise Invalid("name the lead once", [FieldError("query:email", "not together with a lead id")])
    if email is not None:
        return await find_by_email(connection, runtime.ids, address(email))
    return None if lead_id is None else LeadId(lead_id)


async def the_lead_asked_for(connection: Connection, runtime: Runtime, email: str | None) -> LeadId:
    """The lead behind a required `?email=`. Raises Invalid, NoSuchLead."""
    lead_id = await lead_asked_for(connection, runtime, None, email)
    if lead_id is None:
        raise Invalid("look at query:email", [FieldError("query:email", "is required")])
    return lead_id


def no_such_lead(lead_id: str) -> NoSuchLead:
    """Nothing is known about it."""
    return NoSuchLead(f"nothing was told here about a lead {lead_id[:100]}")


def no_such_rep(rep_id: str) -> NoSuchRep:
    """There is none."""
    return NoSuchRep(f"there is no rep {rep_id[:100]}")
