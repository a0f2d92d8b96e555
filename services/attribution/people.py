"""Whom a request is about: by lead id, any that they ever had, or by email address."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Query

from shared.db import Connection
from shared.emails import Email
from shared.errors import FieldError, Invalid
from shared.identity import LeadIds, find_by_email, resolve
from shared.ids import LeadId

_ID = r"^[0-9A-Za-z_.:-]{1,200}$"
LeadIdPath = Annotated[str, Path(pattern=_ID, description="A lead's id; any id that turned out to be theirs will do")]
ConversionIdPath = Annotated[str, Path(pattern=_ID)]


@dataclass(frozen=True, slots=True)
class Whom:
    """A person, named in one of two ways."""

    lead_id: LeadId | None
    email: str | None


def whom(
    lead_id: Annotated[str | None, Query(pattern=_ID, description="A lead's id")] = None,
    email: Annotated[Email | None, Query(description="Their email address")] = None,
) -> Whom:
    """The person that the query names. Raises Invalid unless it names one, in one way."""
    if (lead_id is None) == (email is None):
        fault = FieldError("query:email", "send either email or lead_id")
        raise Invalid("it is not clear whom this is about", [fault])
    return Whom(LeadId(lead_id) if lead_id is not None else None, email)


async def find(connection: Connection, ids: LeadIds, named: Whom) -> LeadId:
    """The person's id as it stands now; facts may have come with others."""
    if named.email is not None:
        return await find_by_email(connection, ids, named.email)
    assert named.lead_id is not None
    return await resolve(connection, named.lead_id)
