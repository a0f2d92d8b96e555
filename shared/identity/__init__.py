"""Lead ids made from identifiers, and the alias table that every projection resolves them by."""

from shared.identity._ids import LeadIds
from shared.identity._people import (
    Member,
    OnChange,
    find_by_email,
    identity_routes,
    members,
    members_of_many,
    persons_of,
    resolve,
    resolve_many,
)

__all__ = [
    "LeadIds",
    "Member",
    "OnChange",
    "find_by_email",
    "identity_routes",
    "members",
    "members_of_many",
    "persons_of",
    "resolve",
    "resolve_many",
]
