"""Providers ready to be called, and what all processes keep of their calls: the budget, the rate, the breaker."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import asyncpg

from services.capture.enrichment import queries
from services.capture.enrichment.asking import TOO_MANY, Said
from services.capture.enrichment.document import Provider, ProviderDocument, compile_provider
from services.capture.enrichment.domain import Mapped, NotBefore, Permit, mapped, permit
from services.capture.enrichment.queries import Usage
from shared.outbound import PrivateHosts, trusted_hosts
from shared.service import Runtime
from shared.telemetry import counter

CALLS = counter(
    "throughline_enrichment_calls_total", "Calls to providers of data by what came of them", ["provider", "outcome"]
)
REFUSED_FOR = timedelta(minutes=1)


class CompiledProviders:
    """Providers compiled once per version."""

    def __init__(self, runtime: Runtime) -> None:
        self._private = PrivateHosts(trusted_hosts(runtime.settings))
        self._kept: dict[tuple[str, int], Provider] = {}

    def of(self, row: asyncpg.Record) -> Provider:
        """The provider in a row. Raises InvalidDocument, or ValidationError, where an older release saved it."""
        key = (row["provider_id"], row["version"])
        if key not in self._kept:
            document = ProviderDocument.model_validate(queries.document_of(row))
            self._kept[key] = compile_provider(*key, document, self._private)
        return self._kept[key]


async def take_permit(provider: Provider, runtime: Runtime) -> Permit | NotBefore:
    """Whether a call may be made now; if so it is written down, so that no budget is exceeded by whoever dies then."""
    now = runtime.clock.now()
    async with runtime.database.transaction() as tx:
        state = await queries.lock_state(tx.connection, provider.provider_id, now.date())
        decision = permit(provider, state, now)
        if isinstance(decision, Permit):
            await queries.take_slot(tx.connection, provider.provider_id, decision)
            usage = Usage(calls=1, spent_minor=provider.document.budget.cost_minor)
            await queries.add_usage(tx.connection, provider.provider_id, now.date(), usage)
    return decision


async def account(provider: Provider, said: Said, runtime: Runtime) -> None:
    """Write down how a call went, for the account and for the breaker."""
    now, provider_id = runtime.clock.now(), provider.provider_id
    CALLS.labels(provider_id, said.kind).inc()
    usage = Usage(hits=said.kind == "data", misses=said.kind == "nothing", failures=said.kind == "failure")
    breaker = provider.document.breaker
    async with runtime.database.reading() as connection:
        await queries.add_usage(connection, provider_id, now.date(), usage)
        if said.kind != "failure" or said.final:
            await connection.execute(queries.WORKED, provider_id)
        elif said.blame:
            until = now + timedelta(seconds=max(breaker.open_s, said.retry_after_s or 0))
            await connection.execute(queries.FAILED, provider_id, breaker.failures, until)
        if said.status == TOO_MANY:
            pause = timedelta(seconds=said.retry_after_s) if said.retry_after_s is not None else REFUSED_FOR
            await connection.execute(queries.LEAVE_ALONE, provider_id, now + pause)


def mapped_answer(provider: Provider, said: Said, lead: Mapping[str, Any]) -> Mapped:
    """What an answer about a lead says by the provider's map."""
    if said.kind != "data":
        return Mapped({}, 0.0)
    return mapped(provider, said.status or 0, said.response, lead)


def opened(row: asyncpg.Record, runtime: Runtime) -> str | None:
    """The credential in a provider's row."""
    if row["credential"] is None:
        return None
    return str(runtime.keys.open_request(row["credential"], f"enrichment/{row['provider_id']}")["secret"])
