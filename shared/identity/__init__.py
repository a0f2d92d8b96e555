"""Lead ids made from identifiers, and the alias table that every projection resolves them by."""

from shared.identity._ids import LeadIds
from shared.identity._people import (
    Fact,
    Member,
    OnChange,
    find_by_email,
    hold_owners,
    identity_routes,
    members,
    members_of_many,
    owners_again,
    owners_seen,
    persons_behind,
    persons_of,
    resolve,
    resolve_many,
)

__all__ = [
    "Fact",
    "LeadIds",
    "Member",
    "OnChange",
    "find_by_email",
    "hold_owners",
    "identity_routes",
    "members",
    "members_of_many",
    "owners_again",
    "owners_seen",
    "persons_behind",
    "persons_of",
    "resolve",
    "resolve_many",
]
