"""Enrichment over HTTP: providers as documents, and what became of a lead."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from services.capture.deciding import decided
from services.capture.enrichment import queries
from services.capture.enrichment.document import ProviderDocument
from services.capture.enrichment.inputs import (
    NEWEST,
    ActivateInput,
    CredentialInput,
    EnrichmentOut,
    ProviderOut,
    TriedOut,
    TryInput,
    VersionOut,
)
from services.capture.enrichment.providers import (
    ProviderCatalogue,
    activate_version,
    save_provider,
    saved_document,
    set_credential,
)
from services.capture.enrichment.trying import try_provider
from services.capture.enrichment.views import enrichment_out, version_out
from services.capture.leads.finding import EmailQuery, lead_with_address
from services.capture.leads.views import family_of
from services.capture.reading import lead_id_of, read_body
from shared.db import Tx
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, authorise, described_body, make_cursor, read_cursor, requires

JSON = "application/json"
SCOPE = "capture:write"
OK, ACCEPTED = 200, 202
ProviderId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")]


def enrichment_router(runtime: Runtime) -> APIRouter:
    """The endpoints about enrichment."""
    router = Endpoints(tags=["enrichment"])
    may_read = [Depends(requires("capture:read"))]
    catalogue = ProviderCatalogue(runtime)

    @router.get("/v1/enrichment/providers", dependencies=may_read)
    async def list_providers() -> Page[ProviderOut]:
        """All providers, in the order in which they are asked."""
        async with runtime.database.reading() as connection:
            return Page(items=await catalogue.listed(connection), next_cursor=None)

    @router.put(
        "/v1/enrichment/providers/{provider_id}",
        openapi_extra=described_body(ProviderDocument),
        responses={OK: {"model": ProviderOut}},
    )
    async def put_provider(request: Request, provider_id: ProviderId) -> ProviderOut:
        """Save a provider, or a new version of it, which counts at once. One that is not `active` is not asked."""
        principal = await authorise(request, SCOPE)
        document = saved_document(await request.body())
        async with runtime.database.transaction() as tx:
            await save_provider(tx.connection, provider_id, document, principal.subject, catalogue.private)
            return await catalogue.one(tx.connection, provider_id)

    @router.get("/v1/enrichment/providers/{provider_id}", dependencies=may_read)
    async def get_provider(provider_id: ProviderId) -> ProviderOut:
        """A provider, with its account and whether it is called at the moment."""
        async with runtime.database.reading() as connection:
            return await catalogue.one(connection, provider_id)

    @router.get("/v1/enrichment/providers/{provider_id}/versions", dependencies=may_read)
    async def list_versions(provider_id: ProviderId, limit: Limit = 50, cursor: str | None = None) -> Page[VersionOut]:
        """All versions of a provider's document, the newest first."""
        before = read_cursor(runtime.secrets, f"provider/{provider_id}", cursor) or NEWEST
        async with runtime.database.reading() as connection:
            await catalogue.one(connection, provider_id)
            found = await catalogue.documents.versions(connection, provider_id, before=before, limit=limit + 1)
        place = found[limit - 1].version if len(found) > limit else None
        more = make_cursor(runtime.secrets, f"provider/{provider_id}", place) if place else None
        return Page(items=[version_out(each) for each in found[:limit]], next_cursor=more)

    @router.post(
        "/v1/enrichment/providers/{provider_id}:activate",
        openapi_extra=described_body(ActivateInput),
        responses={OK: {"model": ProviderOut}},
    )
    async def activate(request: Request, provider_id: ProviderId) -> ProviderOut:
        """Switch to a version, also back."""
        principal = await authorise(request, SCOPE)
        asked = read_body(ActivateInput, await request.body())
        async with runtime.database.transaction() as tx:
            await activate_version(tx.connection, provider_id, asked.version, principal.subject)
            return await catalogue.one(tx.connection, provider_id)

    @router.put(
        "/v1/enrichment/providers/{provider_id}/credential",
        status_code=204,
        openapi_extra=described_body(CredentialInput),
    )
    async def put_credential(request: Request, provider_id: ProviderId) -> Response:
        """Keep what proves us to the provider; it is never shown. The provider is tried again at once."""
        await authorise(request, SCOPE)
        asked = read_body(CredentialInput, await request.body())
        async with runtime.database.transaction() as tx:
            await set_credential(tx.connection, provider_id, asked.credential, runtime.keys)
        return Response(status_code=204)

    @router.post(
        "/v1/enrichment/providers/{provider_id}:test",
        openapi_extra=described_body(TryInput),
        responses={OK: {"model": TriedOut}},
    )
    async def test_provider(request: Request, provider_id: ProviderId) -> TriedOut:
        """Ask a provider about a lead and show everything: the request, the answer, the values. Nothing is kept."""
        await authorise(request, SCOPE)
        asked = read_body(TryInput, await request.body())
        return await try_provider(provider_id, asked, catalogue, runtime)

    @router.get("/v1/leads/{lead_id}/enrichment", dependencies=may_read)
    async def get_enrichment(
        lead_id: str, field: Annotated[str | None, Query(description="Only this field")] = None
    ) -> EnrichmentOut:
        """For each field of a lead the value, who said so and how sure they are; and how it went with each provider."""
        async with runtime.database.reading() as connection:
            family = await family_of(connection, lead_id_of(lead_id), runtime.keys)
            return await enrichment_out(connection, family, runtime.settings.enrichment_off, field)

    @router.get("/v1/leads:enrichment", dependencies=may_read)
    async def get_enrichment_by_email(
        email: EmailQuery, field: Annotated[str | None, Query(description="Only this field")] = None
    ) -> EnrichmentOut:
        """The same by `?email=`."""
        async with runtime.database.reading() as connection:
            lead_id = await lead_with_address(connection, runtime.ids, email)
        return await get_enrichment(lead_id, field)

    @router.post("/v1/leads/{lead_id}:enrich", status_code=ACCEPTED, responses={ACCEPTED: {"model": EnrichmentOut}})
    async def enrich_lead(request: Request, lead_id: str) -> Response:
        """Ask all providers about a lead again, whatever they said before and whenever that was."""
        await authorise(request, SCOPE)

        async def make(tx: Tx) -> Response:
            family = await family_of(tx.connection, lead_id_of(lead_id), runtime.keys)
            await queries.force(tx.connection, family.root.lead_id, runtime.clock.now())
            out = await enrichment_out(tx.connection, family, runtime.settings.enrichment_off)
            return Response(out.model_dump_json(), ACCEPTED, media_type=JSON)

        return await decided(runtime.database, request, await request.body(), make)

    return router
