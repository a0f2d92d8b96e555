"""Sources as the door needs them: verified against without asking the database every time."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.capture.adapters import adapters
from services.capture.adapters.adapter import Adapter, MappingSettings
from services.capture.errors import NoSuchSource
from services.capture.lately import Lately
from services.capture.sources import queries
from services.capture.sources.queries import SourceRow
from shared.db import Connection
from shared.ids import SourceId
from shared.personal import PersonKeys
from shared.service import Runtime

FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """A source, ready for use: its adapter, its live secrets, its mapping."""

    source_id: SourceId
    kind: str
    adapter: Adapter
    secrets: tuple[str, ...]
    settings: MappingSettings
    credential: str | None = None


def seal_secret(keys: PersonKeys, source_id: str, secret: str) -> str:
    """A secret as it is stored."""
    return keys.seal_request({"secret": secret}, f"source/{source_id}")


def ready_source(row: SourceRow, keys: PersonKeys) -> Source:
    """A source as it is used, from how it is stored."""
    opened: Sequence[str] = [
        str(keys.open_request(secret.sealed, f"source/{row.source_id}")["secret"]) for secret in row.live
    ]
    settings = MappingSettings.of(row.mapping, row.defaults)
    label = f"credential/{row.source_id}"
    credential = str(keys.open_request(row.credential, label)["secret"]) if row.credential else None
    return Source(row.source_id, row.kind, adapters()[row.kind], tuple(opened), settings, credential)


def seal_credential(keys: PersonKeys, source_id: str, credential: str) -> str:
    """What proves us to the provider, as it is stored."""
    return keys.seal_request({"secret": credential}, f"credential/{source_id}")


async def source_in(connection: Connection, source_id: str, keys: PersonKeys) -> Source:
    """A source by the database. Raises NoSuchSource."""
    row = await queries.source(connection, source_id)
    if row is None:
        raise NoSuchSource("there is no such source")
    return ready_source(row, keys)


def known_sources(runtime: Runtime) -> Lately[Source]:
    """Sources that were used lately.

    That somebody is unknown is never remembered: Typeform switches a webhook off at the first 404. While PostgreSQL is
    away an old entry still serves, so that handshakes work; deliveries are refused later, when they cannot be stored.
    """

    async def stored(source_id: str) -> Source:
        async with runtime.database.reading() as connection:
            return await source_in(connection, source_id, runtime.keys)

    return Lately(stored, FRESH_S)
