"""Sources over HTTP."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from services.capture.adapters import adapters
from services.capture.adapters.adapter import Headers, HookRequest, Unmappable
from services.capture.adapters.told import told
from services.capture.deciding import decided
from services.capture.errors import LastSecret, NoSuchDelivery, NoSuchSecret, NoSuchSource, TwoSecretsLive
from services.capture.hooks import queries as deliveries
from services.capture.hooks.retrying import retry_unmapped
from services.capture.hooks.sealing import request_in
from services.capture.lately import Lately
from services.capture.mapping import explain, validate_mapping
from services.capture.reading import read_body
from services.capture.sources import queries
from services.capture.sources.inputs import (
    CredentialInput,
    DeliveryOut,
    DeliveryState,
    Discard,
    FieldOut,
    NewSecret,
    NewSource,
    Preview,
    RetriedOut,
    RetryInput,
    SecretInput,
    SecretOut,
    ShownDelivery,
    SourceInput,
    SourceOut,
    SourcePatch,
    Summary,
)
from services.capture.sources.known import Source, ready_source, seal_credential, seal_secret
from services.capture.sources.queries import SecretRow, SourceRow
from shared.db import Connection, Tx, one
from shared.errors import FieldError, Invalid
from shared.ids import SourceId, new_id
from shared.service import Runtime
from shared.web import Endpoints, Instant, Limit, Page, authorise, described_body, make_cursor, read_cursor, requires

CREATED = 201
JSON = "application/json"
MOST_LIVE = 2
SCOPE = "capture:write"
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


def sources_router(runtime: Runtime, known: Lately[Source]) -> APIRouter:
    """The endpoints about sources."""
    router = Endpoints(tags=["sources"])
    may_read = [Depends(requires("capture:read"))]
    may_write = [Depends(requires(SCOPE))]

    @router.post(
        "/v1/sources",
        status_code=CREATED,
        openapi_extra=described_body(SourceInput),
        responses={CREATED: {"model": NewSource}},
    )
    async def create_source(request: Request) -> Response:
        """Make a source. Its secret is made when it is not given, and shown this once."""
        await authorise(request, SCOPE)
        body = await request.body()
        asked = read_body(SourceInput, body)
        secret = _checked(asked)

        async def make(tx: Tx) -> Response:
            source_id = SourceId(new_id())
            await queries.add_source(tx.connection, source_id, asked.kind, asked.name, asked.mapping, asked.defaults)
            await queries.add_secret(tx.connection, source_id, seal_secret(runtime.keys, source_id, secret))
            out = NewSource(**(await _source_out(tx.connection, source_id)).model_dump(), secret=secret)
            return Response(out.model_dump_json(), CREATED, media_type=JSON)

        return await decided(runtime.database, request, body, make)

    @router.get("/v1/sources", dependencies=may_read)
    async def list_sources(limit: Limit = 50, cursor: str | None = None) -> Page[SourceOut]:
        """All sources, without their secrets."""
        after = str(read_cursor(runtime.secrets, "sources", cursor) or "")
        async with runtime.database.reading() as connection:
            rows = await queries.sources(connection, after, limit + 1)
        more = make_cursor(runtime.secrets, "sources", rows[limit - 1].source_id) if len(rows) > limit else None
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.get("/v1/sources/{source_id}", dependencies=may_read)
    async def get_source(source_id: str) -> SourceOut:
        """A source, without its secrets."""
        async with runtime.database.reading() as connection:
            return await _source_out(connection, source_id)

    @router.patch(
        "/v1/sources/{source_id}", openapi_extra=described_body(SourcePatch), responses={200: {"model": SourceOut}}
    )
    async def change_source(request: Request, source_id: str) -> SourceOut:
        """Change a source's name, mapping or defaults; deliveries that are mapped from now on follow them."""
        await authorise(request, SCOPE)
        patch = read_body(SourcePatch, await request.body())
        if faults := validate_mapping(patch.mapping or {}, patch.defaults or {}):
            raise Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults)
        async with runtime.database.transaction() as tx:
            row = await _locked(tx.connection, source_id)
            _check_api_base(row.kind, patch.defaults or {})
            await queries.change_source(tx.connection, row.source_id, patch.name, patch.mapping, patch.defaults)
            out = await _source_out(tx.connection, source_id)
        known.changed(source_id)
        return out

    @router.post(
        "/v1/sources/{source_id}/secrets",
        status_code=CREATED,
        openapi_extra=described_body(SecretInput),
        responses={CREATED: {"model": NewSecret}},
    )
    async def add_secret(request: Request, source_id: str) -> Response:
        """Add a secret beside the one in use, to rotate without losing a delivery. Two at most are live."""
        await authorise(request, SCOPE)
        body = await request.body()
        asked = read_body(SecretInput, body or b"{}")

        async def make(tx: Tx) -> Response:
            row = await _locked(tx.connection, source_id)
            if len(row.live) >= MOST_LIVE:
                raise TwoSecretsLive("retire one of the two live secrets first")
            secret = _secret_for(row.kind, asked.secret)
            added = await queries.add_secret(tx.connection, row.source_id, seal_secret(runtime.keys, source_id, secret))
            out = NewSecret(**_secret_out(added).model_dump(), secret=secret)
            return Response(out.model_dump_json(), CREATED, media_type=JSON)

        answer = await decided(runtime.database, request, body, make)
        known.changed(source_id)
        return answer

    @router.delete("/v1/sources/{source_id}/secrets/{n}", status_code=204, dependencies=may_write)
    async def retire_secret(source_id: str, n: Number) -> Response:
        """Retire a secret: deliveries signed with it are refused, here at once and everywhere within seconds."""
        async with runtime.database.transaction() as tx:
            row = await _locked(tx.connection, source_id)
            if [secret.n for secret in row.live] == [n]:
                raise LastSecret("add the next secret before retiring the last one")
            if not await queries.retire_secret(tx.connection, row.source_id, n):
                raise NoSuchSecret(f"the source has no live secret {n}")
        known.changed(source_id)
        return Response(status_code=204)

    @router.get("/v1/sources/{source_id}/deliveries", dependencies=may_read)
    async def list_deliveries(
        source_id: str, state: DeliveryState | None = None, limit: Limit = 50, cursor: str | None = None
    ) -> Page[DeliveryOut]:
        """What became of the source's deliveries, newest first."""
        place = read_cursor(runtime.secrets, "deliveries", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
        async with runtime.database.reading() as connection:
            await _source_out(connection, source_id)
            rows = await queries.deliveries(connection, source_id, state, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = (
            make_cursor(runtime.secrets, "deliveries", [last["received_at"].isoformat(), last["delivery_id"]])
            if last
            else None
        )
        return Page(items=[DeliveryOut(**dict(row)) for row in rows[:limit]], next_cursor=more)

    @router.get("/v1/sources/{source_id}/deliveries:summary", dependencies=may_read)
    async def summarise_deliveries(
        source_id: str,
        earliest: Annotated[Instant | None, Query(alias="from", description="The first moment that counts")] = None,
        latest: Annotated[Instant | None, Query(alias="to", description="The first that counts no more")] = None,
    ) -> Summary:
        """What became of all that was delivered: received is mapped, ignored, duplicate, quarantined and pending."""
        async with runtime.database.reading() as connection:
            await _source_out(connection, source_id)
            row = await one(connection, deliveries.SUMMARY, source_id, earliest, latest)
        counts = {name: int(count) for name, count in row.items()}
        return Summary(received=sum(counts.values()), **counts)

    @router.post(
        "/v1/sources/{source_id}/deliveries:retry", openapi_extra=described_body(RetryInput), dependencies=may_write
    )
    async def retry_deliveries(request: Request, source_id: str) -> RetriedOut:
        """Try deliveries again that are quarantined or name nobody, for instance after the mapping was corrected."""
        asked = read_body(RetryInput, await request.body() or b"{}")
        async with runtime.database.reading() as connection:
            await _source_out(connection, source_id)
        return await retry_unmapped(SourceId(source_id), runtime, asked.delivery_ids)

    @router.get(
        "/v1/sources/{source_id}/deliveries/{delivery_id:path}", dependencies=[Depends(requires("capture:admin"))]
    )
    async def get_delivery(source_id: str, delivery_id: str) -> ShownDelivery:
        """A delivery, its facts and its lead; what is not mapped yet with the request that came in."""
        async with runtime.database.reading() as connection:
            await _source_out(connection, source_id)
            row = await connection.fetchrow(deliveries.DELIVERY, source_id, delivery_id)
        if row is None:
            raise NoSuchDelivery(f"the source has no delivery {delivery_id}")
        shown = dict(row)
        sealed = shown.pop("sealed")
        return ShownDelivery(**shown, request=_shown(sealed, source_id, delivery_id) if sealed else None)

    @router.post(
        "/v1/sources/{source_id}/deliveries/{delivery_id:path}:discard",
        status_code=204,
        openapi_extra=described_body(Discard),
    )
    async def discard_delivery(request: Request, source_id: str, delivery_id: str) -> Response:
        """Give up on a delivery that cannot be mapped. Who did it, and why, is kept; what it held is not."""
        principal = await authorise(request, SCOPE)
        asked = read_body(Discard, await request.body())
        async with runtime.database.transaction() as tx:
            await _source_out(tx.connection, source_id)
            reason = f"discarded: {asked.reason}"
            if await tx.connection.fetchval(deliveries.DISCARD, source_id, delivery_id, reason) is None:
                raise NoSuchDelivery(f"the source has no quarantined delivery {delivery_id}")
            target = f"{source_id}/{delivery_id}"
            await tx.connection.execute(deliveries.AUDIT, principal.subject, target, {"reason": asked.reason})
        return Response(status_code=204)

    @router.put("/v1/sources/{source_id}/credential", status_code=204, openapi_extra=described_body(CredentialInput))
    async def set_credential(request: Request, source_id: str) -> Response:
        """Keep what proves us to the provider when it is asked about a delivery; it is never shown."""
        await authorise(request, SCOPE)
        asked = read_body(CredentialInput, await request.body())
        async with runtime.database.transaction() as tx:
            row = await _locked(tx.connection, source_id)
            sealed = seal_credential(runtime.keys, source_id, asked.credential) if asked.credential else None
            await tx.connection.execute(queries.SET_CREDENTIAL, row.source_id, sealed)
        known.changed(source_id)
        return Response(status_code=204)

    @router.post("/v1/sources/{source_id}:preview", dependencies=may_read)
    async def preview(request: Request, source_id: str) -> Preview:
        """What a body, sent here as the source would send it, would become, and why a field did not map."""
        async with runtime.database.reading() as connection:
            row = await queries.source(connection, source_id)
        if row is None:
            raise NoSuchSource(f"there is no source {source_id}")
        source = ready_source(row, runtime.keys)
        kept = [(name, value) for name, value in request.headers.items() if name != "authorization"]
        asked = HookRequest("POST", _out(row).hook_url, Headers.of(kept), await request.body(), runtime.clock.now())
        if needs := list(source.adapter.lookups(asked)):
            return Preview(facts=[], fields=[], needs=needs, problem="the provider has to be asked first")
        try:
            reading = source.adapter.read(asked, source.settings)
            fields = [FieldOut(**asdict(field)) for field in explain(reading, asked, source.settings)]
            return Preview(facts=[told(fact) for fact in source.adapter.facts(asked, source.settings)], fields=fields)
        except Unmappable as exc:
            return Preview(facts=[], fields=[], problem=exc.detail)

    def _shown(sealed: str, source_id: str, delivery_id: str) -> dict[str, object]:
        kept = request_in(sealed, source_id, delivery_id, runtime.keys)
        return {
            "method": kept.method,
            "url": kept.url,
            "headers": list(kept.headers.pairs),
            "body": kept.raw_body.decode(errors="replace"),
        }

    async def _source_out(connection: Connection, source_id: str) -> SourceOut:
        row = await queries.source(connection, source_id)
        if row is None:
            raise NoSuchSource(f"there is no source {source_id}")
        return _out(row)

    async def _locked(connection: Connection, source_id: str) -> SourceRow:
        row = await queries.source(connection, source_id, lock=True)
        if row is None:
            raise NoSuchSource(f"there is no source {source_id}")
        return row

    def _out(row: SourceRow) -> SourceOut:
        return SourceOut(
            source_id=row.source_id,
            kind=row.kind,
            name=row.name,
            hook_url=f"{runtime.settings.public_url.rstrip('/')}/capture/hooks/{row.source_id}",
            mapping=row.mapping,
            defaults=row.defaults,
            has_credential=row.credential is not None,
            secrets=[_secret_out(secret) for secret in row.secrets],
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    return router


def _checked(asked: SourceInput) -> str:
    """The secret of a source to be made. Raises Invalid with every fault of what was asked."""
    if asked.kind not in adapters():
        fault = FieldError("/kind", f"is not one of {', '.join(sorted(adapters()))}")
        raise Invalid("look at /kind", [fault])
    if faults := validate_mapping(asked.mapping, asked.defaults):
        raise Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults)
    _check_api_base(asked.kind, asked.defaults)
    return _secret_for(asked.kind, asked.secret)


def _check_api_base(kind: str, defaults: Mapping[str, Any]) -> None:
    """Raise Invalid for an address of an API that is not the provider's own: it would be shown the credential."""
    base = defaults.get("api_base")
    if base is None:
        return
    hosts = adapters()[kind].api_hosts
    parts = urlsplit(str(base))
    if parts.netloc not in hosts or parts.path not in ("", "/") or parts.query or parts.fragment:
        offered = ", ".join(f"https://{host}" for host in sorted(hosts))
        detail = f"is one of {offered}" if hosts else f"{kind} has one API for all regions, and nothing to choose"
        raise Invalid("look at /defaults/api_base", [FieldError("/defaults/api_base", detail)])


def _secret_for(kind: str, given: str | None) -> str:
    adapter = adapters()[kind]
    if given is None:
        made = adapter.new_secret()
        if (detail := adapter.secret_fault(made)) is not None:
            detail = f"is required, since the provider makes it: {detail}; take it {adapter.secret_from}"
            raise Invalid("look at /secret", [FieldError("/secret", detail)])
        return made
    if (detail := adapter.secret_fault(given)) is not None:
        raise Invalid("look at /secret", [FieldError("/secret", detail)])
    return given


def _secret_out(row: SecretRow) -> SecretOut:
    return SecretOut(n=row.n, created_at=row.created_at, retired_at=row.retired_at)
