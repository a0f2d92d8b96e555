"""Sites over HTTP: their administration, the snippet, and the door for what pages send."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.capture.deciding import decided
from services.capture.errors import NoSuchSite
from services.capture.forgotten import Forgotten
from services.capture.lately import Lately
from services.capture.reading import read_body
from services.capture.settings import CaptureSettings
from services.capture.sites import queries
from services.capture.sites.collecting import Collector, cross_origin
from services.capture.sites.inputs import SiteBatch, SiteInput, SiteOut, SitePatch
from services.capture.sites.queries import SiteRow
from services.capture.sites.snippet import SERVED, etag, script, tag_for
from shared.db import Tx
from shared.errors import Rejected, Unavailable
from shared.ids import new_id
from shared.service import Runtime
from shared.web import (
    DirectRoute,
    Endpoints,
    Limit,
    Page,
    authorise,
    described_body,
    make_cursor,
    read_cursor,
    rejected,
    requires,
    unavailable,
)

CREATED = 201
ACCEPTED = 202
JSON = "application/json"
SCOPE = "capture:write"
SCRIPT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/javascript": {}}}}
FRESH_S = 5.0  # as long a page of an origin that was taken away may still send


def sites_router(runtime: Runtime, forgotten: Forgotten, settings: CaptureSettings) -> APIRouter:
    """The endpoints about sites. The snippet and what it sends need no token; a site's id is public."""
    router = Endpoints(tags=["sites"])
    door = Endpoints(tags=["sites"], route_class=DirectRoute)
    collector = Collector(runtime, forgotten, settings)
    may_read = [Depends(requires("capture:read"))]
    may_write = [Depends(requires(SCOPE))]

    async def stored(site_id: str) -> SiteRow:
        async with runtime.database.reading() as connection:
            return _there(await queries.site(connection, site_id), site_id)

    known = Lately(stored, FRESH_S)

    @router.get("/t.js", response_class=Response, responses=SCRIPT, summary="The tracking snippet")
    @router.head("/t.js", include_in_schema=False)
    async def snippet(request: Request) -> Response:
        headers = {**SERVED, "ETag": etag()}
        if etag() in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(script(), headers=headers, media_type="text/javascript")

    @door.post("/t/{site_id}", status_code=ACCEPTED, openapi_extra=described_body(SiteBatch))
    async def collect(request: Request, site_id: str) -> Response:
        """Keep what a page of the site sends, as text or JSON. The good events are kept, and the others named."""
        site = await known.get(site_id)
        try:
            answer = await collector.take(request, site)
        except Rejected as exc:
            answer = rejected(exc)
        except Unavailable as exc:
            answer = unavailable(exc)
        answer.headers.update(cross_origin(site.origins, request))
        return answer

    @door.options("/t/{site_id}", include_in_schema=False)
    async def may_collect(request: Request, site_id: str) -> Response:
        site = await known.get(site_id)
        return Response(status_code=204, headers=cross_origin(site.origins, request))

    @router.post(
        "/v1/sites",
        status_code=CREATED,
        openapi_extra=described_body(SiteInput),
        responses={CREATED: {"model": SiteOut}},
    )
    async def create_site(request: Request) -> Response:
        """Make a site. The answer holds the snippet for its pages."""
        await authorise(request, SCOPE)
        body = await request.body()
        asked = read_body(SiteInput, body)

        async def make(tx: Tx) -> Response:
            row = await queries.add_site(tx.connection, new_id(), asked.name, asked.origins, asked.consent)
            return Response(_out(row).model_dump_json(), CREATED, media_type=JSON)

        return await decided(runtime.database, request, body, make)

    @router.get("/v1/sites", dependencies=may_read)
    async def list_sites(limit: Limit = 50, cursor: str | None = None) -> Page[SiteOut]:
        """All sites."""
        after = str(read_cursor(runtime.secrets, "sites", cursor) or "")
        async with runtime.database.reading() as connection:
            rows = await queries.sites(connection, after, limit + 1)
        more = make_cursor(runtime.secrets, "sites", rows[limit - 1].site_id) if len(rows) > limit else None
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.get("/v1/sites/{site_id}", dependencies=may_read)
    async def get_site(site_id: str) -> SiteOut:
        """A site, with its snippet."""
        return _out(await stored(site_id))

    @router.patch("/v1/sites/{site_id}", openapi_extra=described_body(SitePatch), responses={200: {"model": SiteOut}})
    async def change_site(request: Request, site_id: str) -> SiteOut:
        """Change a site's name, origins or consent. With another consent the snippet is another, too."""
        await authorise(request, SCOPE)
        patch = read_body(SitePatch, await request.body())
        async with runtime.database.transaction() as tx:
            row = await queries.change_site(tx.connection, site_id, patch.name, patch.origins, patch.consent)
        known.changed(site_id)
        return _out(_there(row, site_id))

    @router.delete("/v1/sites/{site_id}", status_code=204, dependencies=may_write)
    async def drop_site(site_id: str) -> Response:
        """Take nothing more from a site's pages: here at once, and everywhere within seconds. What came in stays."""
        async with runtime.database.transaction() as tx:
            if not await queries.drop_site(tx.connection, site_id):
                raise NoSuchSite(f"there is no site {site_id[:40]}")
        known.changed(site_id)
        return Response(status_code=204)

    def _there(row: SiteRow | None, site_id: str) -> SiteRow:
        if row is None:
            raise NoSuchSite(f"there is no site {site_id[:40]}; look at data-site in the page")
        return row

    def _out(row: SiteRow) -> SiteOut:
        return SiteOut(
            site_id=row.site_id,
            name=row.name,
            origins=row.origins,
            consent="implied" if row.consent == "implied" else "required",
            snippet=tag_for(runtime.settings.public_url.rstrip("/"), row.site_id, row.consent),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    router.take(door)
    return router
