"""The door for webhooks: prove, keep, answer; nothing is mapped before the answer."""

import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import Literal

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.responses import Response

from services.capture.adapters.adapter import Answer
from services.capture.adapters.errors import BadSignature
from services.capture.adapters.request import Headers, HookRequest
from services.capture.hooks.fetching import Certificates, confirm
from services.capture.hooks.sealing import delivery_fact
from services.capture.lately import Lately
from services.capture.sources.known import Source
from shared.errors import Unavailable
from shared.personal import Draft
from shared.service import Runtime
from shared.telemetry import counter
from shared.web import DirectRoute, Endpoints

DELIVERIES = counter("throughline_hook_requests_total", "Webhook requests by what was answered", ["kind", "outcome"])
OK = 200
TrackingCall = Literal["identify", "track", "page", "screen", "group", "alias", "batch"]
SEEN = 10_000


def hooks_router(runtime: Runtime, known: Lately[Source]) -> APIRouter:
    """The endpoint of all sources. It takes no token: each source proves itself by its own secret."""
    router = Endpoints(tags=["hooks"])
    door = Endpoints(tags=["hooks"], route_class=DirectRoute)
    seen: OrderedDict[tuple[str, str], bytes] = OrderedDict()
    certificates = Certificates(runtime.settings)
    base = runtime.settings.public_url.rstrip("/")

    @door.post("/hooks/{source_id}", responses={OK: {"description": "Kept"}})
    @door.get("/hooks/{source_id}", responses={OK: {"description": "There, or the answer to a handshake"}})
    @door.head("/hooks/{source_id}", responses={OK: {"description": "There"}})
    async def receive(request: Request, source_id: str) -> Response:
        """Take a source's delivery; 200 when it is kept, whatever body the source wants back."""
        source = await known.get(source_id)
        request.scope["unpacks"] = True  # the source signed it as it is
        raw_body = await request.body()
        hook = _hook_request(request, raw_body, f"{base}{request.scope['path']}")
        if found := await certificates.of(source.adapter, hook):
            hook = replace(hook, found=found)
        handshake = source.adapter.handshake(hook, source.secrets, source.settings)
        if handshake is not None:
            DELIVERIES.labels(source.kind, "handshake").inc()
            if handshake.status == OK and (address := source.adapter.confirmation(hook)):
                return _response(handshake, BackgroundTask(confirm, source.kind, address, runtime.settings))
            return _response(handshake)
        if request.method != "POST":
            return Response(status_code=OK)
        try:
            source.adapter.verify(hook, source.secrets, hook.received_at, source.settings)
        except BadSignature:
            DELIVERIES.labels(source.kind, "refused").inc()
            raise
        return await _keep(hook, source)

    @router.post("/hooks/{source_id}/v1/{call}", responses={OK: {"description": "Kept"}})
    async def track(
        request: Request,
        source_id: str,
        call: TrackingCall,  # noqa: ARG001  # a part of the address, which the adapter reads
    ) -> Response:
        """Take a call of Segment's tracking API, from a library whose host is the source's address."""
        return await receive(request, source_id)

    def _refuse_replay(stored: HookRequest, source: Source) -> None:
        """Refuse what is a forgery by what this process saw; mapping knows what all of them saw."""
        for token in source.adapter.signed_once(stored):
            body = hashlib.sha256(stored.raw_body).digest()
            if seen.setdefault((source.source_id, token), body) != body:
                DELIVERIES.labels(source.kind, "refused").inc()
                raise BadSignature("the signature came with another body before")
            if len(seen) > SEEN:
                seen.popitem(last=False)

    def _hook_request(request: Request, raw_body: bytes, address: str) -> HookRequest:
        query = request.scope["query_string"].decode("latin-1")
        return HookRequest(
            method=request.method,
            url=f"{address}?{query}" if query else address,
            headers=Headers.of(
                [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
            ),
            raw_body=raw_body,
            received_at=runtime.clock.now(),
        )

    async def _keep(hook: HookRequest, source: Source) -> Response:
        stored = source.adapter.stored(hook, source.secrets)
        _refuse_replay(stored, source)
        delivery_id = source.adapter.delivery_id(stored, source.settings)
        fact = delivery_fact(stored, source.source_id, source.kind, delivery_id, runtime.keys)
        try:
            await runtime.log.append([Draft(fact)], apart=True)
        except Unavailable:
            DELIVERIES.labels(source.kind, "unavailable").inc()
            raise
        DELIVERIES.labels(source.kind, "kept").inc()
        return _response(source.adapter.answer(stored))

    router.take(door)
    return router


def _response(answer: Answer, afterwards: BackgroundTask | None = None) -> Response:
    return Response(answer.body, answer.status, media_type=answer.content_type, background=afterwards)
