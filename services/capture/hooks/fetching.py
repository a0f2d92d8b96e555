"""Second calls: what a provider is asked about a delivery that only holds ids, and the certificates that sign others.

A delivery that needs a second call waits in the table of deliveries, so that no call is lost with a process and none is
made in the middle of a transaction.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx

from services.capture.adapters.adapter import Adapter, HookRequest
from services.capture.errors import NoSuchSource
from services.capture.hooks import queries
from services.capture.hooks.handlers import handle_delivery
from services.capture.hooks.queries import Handled
from services.capture.hooks.sealing import kept_delivery, request_in
from services.capture.sources.known import Source, source_in
from shared.events import DeliveryReceived
from shared.service import Runtime
from shared.telemetry import counter, log

CALLS = counter(
    "throughline_second_calls_total", "Calls to webhook providers by what came of them", ["kind", "outcome"]
)
AT_ONCE = 20
TIMEOUT_S = 10.0
CERTIFICATE_TIMEOUT_S = 0.8
LARGEST_ANSWER = 2_000_000
GIVE_UP_AFTER = timedelta(days=1)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=2), timedelta(hours=1)
GONE = frozenset({404, 410})


class NotNow(Exception):
    """The provider did not answer, or not well; it is asked again later. `after` is what it asked for."""

    def __init__(self, detail: str, after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.after = after


class Refused(Exception):
    """The provider will not answer however often it is asked: the record is gone, or the credential is wrong."""


class SecondCalls:
    """Asks providers for what deliveries need, and has these mapped."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self) -> timedelta | None:
        """Make the calls that are due; answers how long until the next one."""
        runtime = self._runtime
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            while True:
                async with runtime.database.transaction() as tx:
                    rows = await tx.connection.fetch(queries.CLAIM, runtime.clock.now(), AT_ONCE)
                await asyncio.gather(*(self._carry_out(row, client) for row in rows))
                if len(rows) < AT_ONCE:
                    break
        async with runtime.database.reading() as connection:
            due: datetime | None = await connection.fetchval(queries.NEXT_DUE)
        return None if due is None else max(due - runtime.clock.now(), timedelta(milliseconds=50))

    async def _carry_out(self, row: asyncpg.Record, client: httpx.AsyncClient) -> None:
        runtime = self._runtime
        event = kept_delivery(row)
        try:
            async with runtime.database.reading() as connection:
                source = await source_in(connection, event.source_id, runtime.keys)
            request = request_in(event.sealed, event.source_id, event.delivery_id, runtime.keys)
            found = {path: await self._ask(source, path, client) for path in source.adapter.lookups(request)}
        except NoSuchSource:
            await self._quarantine(event, "the source is gone")
        except Refused as exc:
            await self._quarantine(event, str(exc))
        except NotNow as exc:
            await self._later(event, row["tries"], exc)
        else:
            async with runtime.database.transaction() as tx:
                await handle_delivery(event, source, tx, runtime, found)

    async def _ask(self, source: Source, path: str, client: httpx.AsyncClient) -> Any:
        base = self._runtime.settings.providers.get(source.kind) or source.adapter.api
        if base is None or source.credential is None:
            raise Refused("the source has no credential to ask its provider with; set one and retry")
        try:
            answer = await client.get(
                base.rstrip("/") + path, headers=dict(source.adapter.authorization(source.credential))
            )
        except httpx.HTTPError as exc:
            CALLS.labels(source.kind, "no answer").inc()
            raise NotNow(type(exc).__name__) from exc
        CALLS.labels(source.kind, str(answer.status_code)).inc()
        if answer.status_code in GONE:
            raise Refused(f"the provider says that the record is gone ({answer.status_code})")
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Refused(f"the provider refuses the source's credential ({answer.status_code}); set another and retry")
        if not answer.is_success:
            raise NotNow(f"the provider answered {answer.status_code}", _retry_after(answer))
        if len(answer.content) > LARGEST_ANSWER:
            raise Refused("the provider's answer is too large")
        try:
            return answer.json()
        except ValueError:
            raise NotNow("the provider's answer is not JSON") from None

    async def _quarantine(self, event: DeliveryReceived, reason: str) -> None:
        log.warning("delivery_quarantined", source_id=event.source_id, kind=event.kind, slug="capture/second-call")
        async with self._runtime.database.transaction() as tx:
            handled = Handled("quarantined", reason=reason)
            await queries.record_handled(
                tx.connection, event.source_id, event.delivery_id, event.kind, handled, event.sealed, event.received_at
            )

    async def _later(self, event: DeliveryReceived, tries: int, why: NotNow) -> None:
        now = self._runtime.clock.now()
        if now - event.received_at > GIVE_UP_AFTER:
            await self._quarantine(event, f"{why}, for a day")
            return
        pause = min(FIRST_PAUSE * 2 ** min(tries - 1, 20), LONGEST_PAUSE) * (0.5 + random.random() / 2)  # noqa: S311  # jitter
        at = now + max(pause, min(why.after or pause, LONGEST_PAUSE))
        async with self._runtime.database.reading() as connection:
            await connection.execute(queries.TRY_AGAIN, event.source_id, event.delivery_id, at, f"second call: {why}")


class Certificates:
    """The certificates of providers, downloaded once. The adapter has made sure that the address is the provider's."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, str] = OrderedDict()

    async def of(self, adapter: Adapter, request: HookRequest) -> Mapping[str, str]:
        """Those that the request's signature needs, as far as they can be had within the second a sender waits."""
        return {address: text for address in adapter.certificates(request) if (text := await self._text(address))}

    async def _text(self, address: str) -> str | None:
        if address not in self._kept:
            try:
                async with httpx.AsyncClient(timeout=CERTIFICATE_TIMEOUT_S) as client:
                    answer = (await client.get(address)).raise_for_status()
            except httpx.HTTPError as exc:
                log.warning("certificate_missing", error=type(exc).__name__)
                return None
            self._kept[address] = answer.text
            while len(self._kept) > 20:
                self._kept.popitem(last=False)
        return self._kept[address]


async def confirm(address: str) -> None:
    """Tell a provider that its deliveries are wanted. It asks again where this fails."""
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            (await client.get(address)).raise_for_status()
    except httpx.HTTPError as exc:
        log.warning("confirmation_failed", error=type(exc).__name__)


def _retry_after(answer: httpx.Response) -> timedelta | None:
    seconds = answer.headers.get("retry-after", "")
    return timedelta(seconds=min(int(seconds), 86_400)) if seconds.isascii() and seconds.isdecimal() else None
