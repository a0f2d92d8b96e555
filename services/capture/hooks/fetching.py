"""Second calls: what a provider is asked about a delivery that only holds ids, and the certificates that sign others.

A delivery that needs a second call waits in the table of deliveries, so that no call is lost with a process and none is
made in the middle of a transaction.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from services.capture.adapters.adapter import Adapter, HookRequest
from services.capture.adapters.records import GONE
from services.capture.errors import NoSuchSource
from services.capture.hooks import queries
from services.capture.hooks.handlers import handle_delivery
from services.capture.hooks.queries import Handled
from services.capture.hooks.sealing import kept_delivery, request_in
from services.capture.sources.known import Source, source_in
from shared.events import DeliveryReceived
from shared.outbound import AddressRefused, Answer, NoAnswer, Outbound, TooLargeAnswer
from shared.service import Runtime
from shared.settings import Settings
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
RECORD_GONE = frozenset({404, 410})
CREDENTIAL_REFUSED = frozenset({401, 403})


class NotNow(Exception):
    """The provider did not answer, or not well; it is asked again later. `after` is what it asked for."""

    def __init__(self, detail: str, after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.after = after


class Refused(Exception):
    """The provider will not answer however often it is asked: the credential is wrong, or the record is gone."""


class Vanished(Refused):
    """The record is gone; others of the same delivery may be there."""


class SecondCalls:
    """Asks providers for what deliveries need, and has these mapped."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self) -> timedelta | None:
        """Make the calls that are due; answers how long until the next one."""
        runtime = self._runtime
        async with Outbound.of(runtime.settings) as outbound:
            while True:
                async with runtime.database.transaction() as tx:
                    rows = await tx.connection.fetch(queries.CLAIM, runtime.clock.now(), AT_ONCE)
                await asyncio.gather(*(self._carry_out(row, outbound) for row in rows))
                if len(rows) < AT_ONCE:
                    break
        async with runtime.database.reading() as connection:
            due: datetime | None = await connection.fetchval(queries.NEXT_DUE)
        return None if due is None else max(due - runtime.clock.now(), timedelta(milliseconds=50))

    async def _carry_out(self, row: asyncpg.Record, outbound: Outbound) -> None:
        runtime = self._runtime
        event = kept_delivery(row)
        try:
            async with runtime.database.reading() as connection:
                source = await source_in(connection, event.source_id, runtime.keys)
            request = request_in(event.sealed, event.source_id, event.delivery_id, runtime.keys)
            found = await self._found(source, source.adapter.lookups(request), outbound)
        except NoSuchSource:
            await self._quarantine(event, "the source is gone")
        except Refused as exc:
            await self._quarantine(event, str(exc))
        except NotNow as exc:
            await self._later(event, row["tries"], exc)
        else:
            async with runtime.database.transaction() as tx:
                await handle_delivery(event, source, tx, runtime, found)

    async def _found(self, source: Source, paths: Sequence[str], outbound: Outbound) -> dict[str, Any]:
        """What the provider says, by path. Of several records some may be gone; raises Vanished when all are."""
        found: dict[str, Any] = {}
        gone: Vanished | None = None
        for path in paths:
            try:
                found[path] = await self._ask(source, path, outbound)
            except Vanished as exc:
                found[path], gone = GONE, exc
        if gone is not None and all(value is GONE for value in found.values()):
            raise gone
        return found

    async def _ask(self, source: Source, path: str, outbound: Outbound) -> Any:
        base = self._runtime.settings.providers.get(source.kind) or source.settings.api_base or source.adapter.api
        if base is None or source.credential is None:
            raise Refused("the source has no credential to ask its provider with; set one and retry")
        try:
            answer = await outbound.call(
                "GET",
                base.rstrip("/") + path,
                headers=source.adapter.authorization(source.credential),
                timeout_s=TIMEOUT_S,
                largest=LARGEST_ANSWER,
            )
        except AddressRefused as exc:
            raise Refused(exc.detail) from exc
        except TooLargeAnswer as exc:
            raise Refused("the provider's answer is too large") from exc
        except NoAnswer as exc:
            CALLS.labels(source.kind, "no answer").inc()
            raise NotNow(exc.detail) from exc
        CALLS.labels(source.kind, str(answer.status)).inc()
        if answer.status in RECORD_GONE:
            raise Vanished(f"the provider says that the record is gone ({answer.status})")
        if answer.status in CREDENTIAL_REFUSED:
            raise Refused(f"the provider refuses the source's credential ({answer.status}); set another and retry")
        if not answer.is_success:
            pause = timedelta(seconds=answer.retry_after_s) if answer.retry_after_s is not None else None
            raise NotNow(f"the provider answered {answer.status}", pause)
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

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: OrderedDict[str, str] = OrderedDict()

    async def of(self, adapter: Adapter, request: HookRequest) -> Mapping[str, str]:
        """Those that the request's signature needs, as far as they can be had within the second a sender waits."""
        return {
            address: text
            for address in adapter.certificates(request)
            if (text := await self._text(adapter.kind, address))
        }

    async def _text(self, kind: str, address: str) -> str | None:
        if address not in self._kept:
            try:
                answer = await _get(kind, address, self._settings, CERTIFICATE_TIMEOUT_S)
            except (AddressRefused, NoAnswer) as exc:
                log.warning("certificate_missing", error=type(exc).__name__)
                return None
            if not answer.is_success:
                log.warning("certificate_missing", error=answer.status)
                return None
            self._kept[address] = answer.body.decode(errors="replace")
            while len(self._kept) > 20:
                self._kept.popitem(last=False)
        return self._kept[address]


async def confirm(kind: str, address: str, settings: Settings) -> None:
    """Tell a provider that its deliveries are wanted. It asks again where this fails."""
    try:
        answer = await _get(kind, address, settings, TIMEOUT_S)
    except (AddressRefused, NoAnswer) as exc:
        log.warning("confirmation_failed", error=type(exc).__name__)
        return
    if not answer.is_success:
        log.warning("confirmation_failed", error=answer.status)


async def _get(kind: str, address: str, settings: Settings, timeout_s: float) -> Answer:
    """What stands at a provider's address, below the base that the settings name for it if they do."""
    if base := settings.providers.get(kind):
        parts = urlsplit(address)
        address = base.rstrip("/") + urlunsplit(("", "", parts.path or "/", parts.query, ""))
    async with Outbound.of(settings) as outbound:
        return await outbound.call("GET", address, timeout_s=timeout_s)
