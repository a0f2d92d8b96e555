"""From something to tell to a webhook that was taken: enqueue, claim, sign, call, note the answer.

Delivery is at least once, under one `webhook-id`. Each endpoint has its own task, so that a slow one holds up nobody.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from services.routing.webhooks import queries
from services.routing.webhooks.domain import CLAIM_FOR, KEPT, EndpointKind, Outgoing
from services.routing.webhooks.queries import Claimed
from shared.db import Connection, agreed_now
from shared.ids import new_id
from shared.outbound import Outbound
from shared.personal import PersonKeys
from shared.service import Runtime
from shared.telemetry import counter, log
from shared.webhooks import Verdict, post, secret_of, signed_headers

TRIED = counter("throughline_routing_webhook_tries_total", "Tries to deliver webhooks, by what they came to", ["state"])
SUSPENDED = counter(
    "throughline_routing_webhooks_suspended_total", "Endpoints suspended after failures: somebody must look at them"
)
AT_ONCE = 20
PATIENCE_S = 1.0
"""So long a round waits for the first endpoint that it began with; those that are slow go on behind it."""


async def enqueue(connection: Connection, keys: PersonKeys, outgoing: Sequence[Outgoing], at: datetime) -> None:
    """Hand things over for delivery, in the transaction of what they tell."""
    blocks = await keys.seal_by_any(connection, [(one.sealed_for, one.body) for one in outgoing])
    rows = []
    for one, block in zip(outgoing, blocks, strict=True):
        sealed_for, sealed = block or (None, None)
        body = one.body if sealed is None else None
        place = (one.endpoint_id, one.delivery_id, one.kind, one.ordering_key)
        rows.append((*place, body, sealed, sealed_for, at, list(one.sealed_for)))
    await queries.enqueue(connection, rows)


async def add_endpoint(  # noqa: PLR0913  # what an endpoint is made of
    connection: Connection, keys: PersonKeys, url: str, description: str, secret: str | None, at: datetime
) -> tuple[str, str]:
    """A new endpoint; answers its id and its secret, made where none is given."""
    endpoint_id, secret = new_id(), secret or secret_of(secrets.token_bytes(32))
    await queries.add_endpoint(connection, endpoint_id, url, description, at)
    await queries.add_secret(connection, endpoint_id, seal_secret(keys, endpoint_id, secret), at)
    return endpoint_id, secret


def seal_secret(keys: PersonKeys, endpoint_id: str, secret: str) -> str:
    """A secret as it is stored."""
    return keys.seal_request({"secret": secret}, f"webhook/{endpoint_id}")


Call = Callable[[Outbound, Claimed, bytes], Awaitable[Verdict]]


class Deliverer:
    """Delivers what is due. Several may run at once: claims keep them apart.

    `calls` are those of other kinds of endpoints; to a webhook goes the body as it is, signed.
    """

    def __init__(self, runtime: Runtime, calls: Mapping[EndpointKind, Call] = MappingProxyType({})) -> None:
        self._runtime = runtime
        self._calls = {"webhook": self._call, **calls}
        self._claim = secrets.token_hex(8)
        self._busy: dict[str, asyncio.Task[None]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether something is under way behind the last round."""
        return bool(self._busy)

    async def run(self) -> timedelta | None:
        """One round; answers how long until the next delivery is due."""
        try:
            return await self._round()
        except asyncio.CancelledError:  # nothing goes on behind a worker that has stopped
            for task in self._busy.values():
                task.cancel()
            if self._busy:
                await asyncio.wait(self._busy.values())
            raise

    async def _round(self) -> timedelta | None:
        async with self._runtime.database.reading() as connection:
            at = await agreed_now(connection, self._runtime.clock)
            begun = [one for one in await queries.due_endpoints(connection, at) if one not in self._busy]
            for endpoint_id in begun:
                self._busy[endpoint_id] = asyncio.create_task(self._serve(endpoint_id))
        if self._busy:
            patience = PATIENCE_S if begun else 0
            done, _ = await asyncio.wait(self._busy.values(), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            self._busy = {endpoint_id: task for endpoint_id, task in self._busy.items() if task not in done}
            for task in done:
                task.result()
        async with self._runtime.database.reading() as connection:
            due = await queries.next_due(connection)
        return None if due is None else max(due - at, timedelta(milliseconds=50))

    async def clean_up(self) -> None:
        """Give up on what waited too long, and forget what was settled long ago."""
        async with self._runtime.database.reading() as connection:
            await queries.clean_up(connection, await agreed_now(connection, self._runtime.clock), KEPT)

    async def _serve(self, endpoint_id: str) -> None:
        """Deliver to one endpoint until nothing is due for it."""
        runtime = self._runtime
        async with Outbound.of(runtime.settings) as outbound:
            while True:
                async with runtime.database.reading() as connection:
                    at = await agreed_now(connection, runtime.clock)
                    claimed = await queries.claim(connection, endpoint_id, at, AT_ONCE, self._claim, CLAIM_FOR)
                    bodies = await _bodies(connection, runtime.keys, claimed)
                if not claimed:
                    return
                tries = [self._try(outbound, one, body) for one, body in zip(claimed, bodies, strict=True)]
                await asyncio.gather(*tries)

    async def _try(self, outbound: Outbound, claimed: Claimed, body: bytes | None) -> None:
        runtime = self._runtime
        if body is None:
            async with runtime.database.reading() as connection:
                now = await agreed_now(connection, runtime.clock)
                await queries.drop(connection, claimed, self._claim, "the person was erased", now)
            return
        began = time.monotonic()
        verdict = await self._calls[claimed.endpoint_kind](outbound, claimed, body)
        took_ms = round((time.monotonic() - began) * 1000)
        async with runtime.database.transaction() as tx:
            now = await agreed_now(tx.connection, runtime.clock)
            suspended = await queries.record(tx.connection, claimed, self._claim, verdict, now, took_ms)
        TRIED.labels(verdict.state).inc()
        if suspended or verdict.gone:
            SUSPENDED.inc()
            log.error("webhook_endpoint_stopped", endpoint_id=claimed.endpoint_id, said=verdict.said)

    async def _call(self, outbound: Outbound, claimed: Claimed, body: bytes) -> Verdict:
        runtime = self._runtime
        async with runtime.database.reading() as connection:
            live = await live_secrets(connection, runtime.keys, claimed.endpoint_id)
            headers = signed_headers(claimed.delivery_id, body, live, await agreed_now(connection, runtime.clock))
        return await post(outbound, claimed.url, headers, body, claimed.attempts, claimed.delivery_id)


async def live_secrets(connection: Connection, keys: PersonKeys, endpoint_id: str) -> list[str]:
    """The secrets that sign what goes to an endpoint, the newest first."""
    rows = await queries.live_secrets(connection, endpoint_id)
    return [str(keys.open_request(row["sealed"], f"webhook/{endpoint_id}")["secret"]) for row in rows]


async def _bodies(connection: Connection, keys: PersonKeys, claimed: Sequence[Claimed]) -> list[bytes | None]:
    """What is to be sent; None where the person's key is gone."""
    sealed = [(one.sealed_for, one.sealed) for one in claimed if one.sealed_for is not None]
    texts = iter(await keys.open_many(connection, sealed) if sealed else [])
    return [one.body if one.sealed_for is None else next(texts) for one in claimed]
