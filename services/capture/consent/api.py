"""The consent ledger over HTTP."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.capture.consent.handlers import tell_words_of
from services.capture.consent.inputs import ChangedPage, ConsentEntries, ConsentInput, ConsentOut, Purpose, entries_in
from services.capture.consent.views import changed_page, consent_out
from services.capture.deciding import decided
from services.capture.facts.domain import API
from services.capture.leads.finding import EmailQuery, lead_with_address
from services.capture.leads.telling import Cause
from services.capture.reading import lead_id_of
from shared.db import Tx
from shared.events import ConsentChannel
from shared.service import Runtime
from shared.web import Endpoints, Instant, Limit, authorise, described_body, read_cursor, requires

CREATED = 201
OK = 200
BEGINNING = datetime(1, 1, 2, tzinfo=UTC)

Moment = Annotated[Instant | None, Query(description="With an offset; default: all that is known now")]


def consent_router(runtime: Runtime) -> APIRouter:
    """The endpoints about consent."""
    router = Endpoints(tags=["consent"])
    may_read = [Depends(requires("capture:read"))]

    @router.get("/v1/leads/{lead_id}/consent", dependencies=may_read)
    async def get_consent(
        lead_id: str,
        as_of: Moment = None,
        known_at: Moment = None,
        channel: ConsentChannel | None = None,
        purpose: Annotated[Purpose | None, Query()] = None,
    ) -> ConsentOut:
        """What the person allows, and everything that was ever said about it; now, or as of an instant.

        All words of all ids count that are this person's today, also after a merge.
        """
        async with runtime.database.reading() as connection:
            return await consent_out(
                connection,
                runtime.keys,
                lead_id_of(lead_id),
                as_of=as_of,
                known_at=known_at,
                channel=channel,
                purpose=purpose,
            )

    @router.get("/v1/leads:consent", dependencies=may_read)
    async def get_consent_by_email(
        email: EmailQuery,
        as_of: Moment = None,
        known_at: Moment = None,
        channel: ConsentChannel | None = None,
        purpose: Annotated[Purpose | None, Query()] = None,
    ) -> ConsentOut:
        """The same by `?email=`."""
        async with runtime.database.reading() as connection:
            lead_id = await lead_with_address(connection, runtime.ids, email)
        return await get_consent(lead_id, as_of, known_at, channel, purpose)

    @router.post(
        "/v1/leads/{lead_id}/consent",
        status_code=CREATED,
        openapi_extra=described_body(ConsentEntries, ConsentInput),
        responses={CREATED: {"model": ConsentOut}, OK: {"model": ConsentOut, "description": "Nothing of it was new"}},
    )
    async def say(request: Request, lead_id: str) -> Response:
        """Write words about consent into the ledger: `entries`, or one by itself. The same word twice is one."""
        await authorise(request, "capture:write")
        body = await request.body()
        entries = entries_in(body)

        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            about = lead_id_of(lead_id)
            words = [entry.word() for entry in entries]
            new = await tell_words_of(about, words, Cause(API, now, now), tx, runtime)
            out = await consent_out(tx.connection, runtime.keys, about)
            return Response(out.model_dump_json(), CREATED if new else OK, media_type="application/json")

        return await decided(runtime.database, request, body, make)

    @router.get("/v1/consent", dependencies=may_read)
    async def list_changes(
        changed_since: Annotated[
            Instant | None, Query(description="By `recorded_at`; default: from the beginning")
        ] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> ChangedPage:
        """Every word in the order in which it came into the ledger, for systems that keep up with it.

        Nothing appears later before `complete_until`. Words of erased people are left out.
        """
        place = read_cursor(runtime.secrets, "consent", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else (changed_since or BEGINNING, "")
        async with runtime.database.reading() as connection:
            return await changed_page(connection, runtime.secrets, after, limit)

    return router
