"""The identifiers of a call as lead ids, of the generation that is alive."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.capture.leads import queries
from services.capture.leads.domain import Identifier
from shared.db import Connection
from shared.events import IdentifierKind
from shared.identity import LeadIds
from shared.ids import LeadId

Make = Callable[[int], LeadId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Identifiers as they were told, normalised. `origin` is the source that the external id is of."""

    email: str | None = None
    phone: str | None = None
    external_id: str | None = None
    anonymous_id: str | None = None
    origin: str = "api"


@dataclass(frozen=True, slots=True)
class Identified:
    """Those that say who somebody is, and the browser that they used."""

    strong: tuple[Identifier, ...]
    anonymous: Identifier | None


async def identify(connection: Connection, ids: LeadIds, named: Named, stored_at: datetime | None) -> Identified | None:
    """The living identifiers of a call; after an erasure, those of the next generation.

    What was `stored_at` before the erasure is still about the erased person: then None. Without it the person has
    come back just now.
    """
    makers = _makers(ids, named)
    generations = dict.fromkeys(makers, 0)
    erased: set[IdentifierKind] = set()
    while True:
        own_ids = {kind: makers[kind](generation) for kind, generation in generations.items()}
        destroyed = await queries.destroyed_at(connection, sorted(own_ids.values()))
        for kind, own_id in own_ids.items():
            if own_id in destroyed:
                generations[kind] += 1
                if stored_at is not None and stored_at <= destroyed[own_id]:
                    erased.add(kind)
        if not destroyed:
            break
    first = next(kind for kind in ("email", "external", "phone", "anonymous") if kind in makers)
    if first in erased:
        return None
    living = {kind: Identifier(kind, own_id) for kind, own_id in own_ids.items() if kind not in erased}
    anonymous = living.pop("anonymous", None)
    return Identified(tuple(living.values()), anonymous)


def own_id(ids: LeadIds, named: Named, generation_of: Callable[[Make], LeadId]) -> LeadId:
    """The id made from the strongest identifier, of the generation that `generation_of` picks."""
    makers = _makers(ids, named)
    kind: IdentifierKind = next(iter(makers))
    return generation_of(makers[kind])


def _makers(ids: LeadIds, named: Named) -> dict[IdentifierKind, Make]:
    """For each identifier how its id of a generation is made, the strongest first."""
    makers: dict[IdentifierKind, Make] = {}
    if (email := named.email) is not None:
        makers["email"] = lambda generation: ids.of_email(email, generation)
    if (phone := named.phone) is not None:
        makers["phone"] = lambda generation: ids.of_phone(phone, generation)
    if (external_id := named.external_id) is not None:
        makers["external"] = lambda generation: ids.of_external_id(named.origin, external_id, generation)
    if (anonymous_id := named.anonymous_id) is not None:
        makers["anonymous"] = lambda generation: ids.of_anonymous_id(anonymous_id, generation)
    return makers
