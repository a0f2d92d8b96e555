"""The identifiers of a call as lead ids, of the generation that is alive."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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


@dataclass(frozen=True, slots=True)
class Sought:
    """Identifiers to look for. What was `stored_at` before an erasure is still about the erased person.

    What `may_return` is false of tells about an erased person only if they have come back on their own.
    """

    named: Named
    stored_at: datetime | None = None
    may_return: bool = True


async def identify(connection: Connection, ids: LeadIds, named: Named, stored_at: datetime | None) -> Identified | None:
    """The living identifiers of a call; after an erasure, those of the next generation. None as by `identify_each`."""
    return (await identify_each(connection, ids, [Sought(named, stored_at)]))[0]


async def identify_each(connection: Connection, ids: LeadIds, sought: Sequence[Sought]) -> list[Identified | None]:
    """The living identifiers of many calls; None of a call about somebody who was erased and has not come back.

    Without `stored_at` the person has come back just now.
    """
    searches = [_Search(_makers(ids, each.named)) for each in sought]
    asking = [(search, each, kind) for search, each in zip(searches, sought, strict=True) for kind in search.makers]
    while asking:
        destroyed = await queries.destroyed_at(connection, sorted({search.own_ids[kind] for search, _, kind in asking}))
        asking = [entry for entry in asking if entry[0].own_ids[entry[2]] in destroyed]
        for search, each, kind in asking:
            search.next_generation(kind, destroyed[search.own_ids[kind]], each.stored_at)
    later = {
        own_id
        for search, each in zip(searches, sought, strict=True)
        if not each.may_return
        for own_id in search.of_later_generations()
    }
    unknown = later - await queries.known_again(connection, sorted(later)) if later else later
    return [
        search.found(frozenset() if each.may_return else unknown) for search, each in zip(searches, sought, strict=True)
    ]


class _Search:
    """The identifiers of one call, each of the youngest generation so far."""

    def __init__(self, makers: Mapping[IdentifierKind, Make]) -> None:
        self.makers = makers
        self.own_ids = {kind: make(0) for kind, make in makers.items()}
        self._generations: dict[IdentifierKind, int] = {}
        self._erased: set[IdentifierKind] = set()

    def next_generation(self, kind: IdentifierKind, destroyed_at: datetime, stored_at: datetime | None) -> None:
        """The person behind the identifier was erased."""
        self._generations[kind] = self._generations.get(kind, 0) + 1
        self.own_ids[kind] = self.makers[kind](self._generations[kind])
        if stored_at is not None and stored_at <= destroyed_at:
            self._erased.add(kind)

    def of_later_generations(self) -> list[LeadId]:
        """Those that say who somebody is, and said it of somebody erased."""
        alone = self.makers.keys() == {"anonymous"}
        return [self.own_ids[kind] for kind in self._generations if kind != "anonymous" or alone]

    def found(self, unknown: AbstractSet[LeadId]) -> Identified | None:
        """What the call is known by; nothing where it is about one of the erased, or one of the `unknown`."""
        first = next((kind for kind in ("email", "external", "phone", "anonymous") if kind in self.makers), None)
        if first is None or first in self._erased or not unknown.isdisjoint(self.of_later_generations()):
            return None
        living = {kind: Identifier(kind, id_) for kind, id_ in self.own_ids.items() if kind not in self._erased}
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
