"""Providers saved, switched and shown."""

from datetime import datetime
from typing import Any

import asyncpg

from services.capture.enrichment import queries
from services.capture.enrichment.document import ProviderDocument, compile_provider
from services.capture.enrichment.inputs import BreakerOut, ProviderOut, UsageOut
from services.capture.errors import NoSuchProvider, TooManyProviders
from services.capture.reading import read_body
from shared.db import Connection
from shared.outbound import PrivateHosts, trusted_hosts
from shared.personal import PersonKeys
from shared.rules import DocumentStore
from shared.service import Runtime

DOCUMENTS = DocumentStore(queries.KIND)
MOST = 100


class ProviderCatalogue:
    """The providers as the API shows them."""

    documents = DOCUMENTS

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.private = PrivateHosts(trusted_hosts(runtime.settings))

    async def listed(self, connection: Connection) -> list[ProviderOut]:
        """All of them, in the order of asking."""
        shown = await self._shown(connection, await queries.providers(connection))
        return sorted(shown, key=lambda each: (each.document["order"], each.provider_id))

    async def one(self, connection: Connection, provider_id: str) -> ProviderOut:
        """One. Raises NoSuchProvider."""
        return (await self._shown(connection, [await self.row(connection, provider_id)]))[0]

    async def row(self, connection: Connection, provider_id: str) -> asyncpg.Record:
        """One as it is stored. Raises NoSuchProvider."""
        row = await queries.provider(connection, provider_id)
        if row is None:
            raise NoSuchProvider(f"there is no provider {provider_id}")
        return row

    async def _shown(self, connection: Connection, rows: list[asyncpg.Record]) -> list[ProviderOut]:
        now = self._runtime.clock.now()
        today = await queries.usage_between(connection, now.date(), now.date())
        month = await queries.usage_between(connection, now.date().replace(day=1), now.date())
        return [
            ProviderOut(
                provider_id=row["provider_id"],
                version=row["version"],
                author=row["author"],
                created_at=row["created_at"],
                document=row["document"],
                has_credential=row["credential"] is not None,
                breaker=_breaker(row, now),
                today=UsageOut(**today.get(row["provider_id"], {})),
                this_month=UsageOut(**month.get(row["provider_id"], {})),
            )
            for row in rows
        ]


def saved_document(body: bytes) -> ProviderDocument:
    """The document in a request. Raises Invalid or Malformed with its faults."""
    return read_body(ProviderDocument, body)


async def save_provider(
    connection: Connection, provider_id: str, document: ProviderDocument, author: str, private: PrivateHosts
) -> None:
    """Save a new version of a provider. Raises InvalidDocument, TooManyProviders."""
    compile_provider(provider_id, 0, document, private)
    if await connection.fetchval(queries.COUNT, provider_id) >= MOST:
        raise TooManyProviders(f"there are {MOST} providers already; change one that is not used")
    written: dict[str, Any] = document.model_dump(mode="json", exclude_none=True)
    await DOCUMENTS.save(connection, written, author, provider_id)
    await connection.execute(queries.SAVE_PROVIDER, provider_id, document.active)


async def activate_version(connection: Connection, provider_id: str, version: int, author: str) -> None:
    """Switch to a version. Raises NoSuchProvider, NoSuchVersion."""
    if await queries.provider(connection, provider_id) is None:
        raise NoSuchProvider(f"there is no provider {provider_id}")
    activated = await DOCUMENTS.activate(connection, version, author, provider_id)
    await connection.execute(queries.SAVE_PROVIDER, provider_id, bool(activated.document["active"]))


async def set_credential(connection: Connection, provider_id: str, credential: str | None, keys: PersonKeys) -> None:
    """Keep a credential, sealed. Raises NoSuchProvider."""
    sealed = keys.seal_request({"secret": credential}, f"enrichment/{provider_id}") if credential else None
    if await connection.fetchval(queries.SET_CREDENTIAL, provider_id, sealed) is None:
        raise NoSuchProvider(f"there is no provider {provider_id}")


def _breaker(row: asyncpg.Record, now: datetime) -> BreakerOut:
    failures, until = row["failures"], row["closed_until"]
    if until is not None and until > now:
        return BreakerOut(state="open", failures=failures, until=until)
    tripped = failures >= ProviderDocument.model_validate(row["document"]).breaker.failures
    return BreakerOut(state="half_open" if tripped else "closed", failures=failures)
