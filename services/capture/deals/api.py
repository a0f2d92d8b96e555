"""Deals of CRMs over HTTP: those that are nobody's, and whose they are."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import asyncpg
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.capture.deals import queries
from services.capture.deals.domain import WORDS
from services.capture.deals.handlers import tie_by_hand, tie_to_account, tie_to_lead
from services.capture.deals.inputs import CrmDealOut, TieInput
from services.capture.deciding import decided
from services.capture.errors import NoSuchAccount
from services.capture.reading import looks_like_id, read_body
from services.capture.sources.known import source_in
from shared.db import Connection, Tx
from shared.emails import parse_email
from shared.errors import FieldError, Invalid
from shared.ids import AccountId, LeadId, SourceId
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, authorise, described_body, make_cursor, read_cursor, requires

SHOWN_PEOPLE = 20
NOWHERE = (None, "", "")


def crm_deals_router(runtime: Runtime) -> APIRouter:
    """The endpoints about deals of CRMs."""
    router = Endpoints(tags=["crm-deals"])

    @router.get("/v1/crm-deals", dependencies=[Depends(requires("capture:read"))])
    async def list_crm_deals(
        state: Annotated[Literal["untied", "tied"], Query(description="Nobody's, or somebody's")] = "untied",
        source_id: Annotated[str | None, Query(max_length=200)] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[CrmDealOut]:
        """Deals that CRMs told of by webhooks, and whose they are or why nobody's; those told of last first."""
        place = read_cursor(runtime.secrets, "crm-deals", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1]), str(place[2])) if place else NOWHERE
        async with runtime.database.reading() as connection:
            rows = await queries.deals(connection, source_id, after, limit + 1, untied=state == "untied")
            items = await _out(connection, rows[:limit])
        last = rows[limit - 1] if len(rows) > limit else None
        place = last and [last["last_at"].isoformat(), last["source_id"], last["deal_id"]]
        return Page(items=items, next_cursor=make_cursor(runtime.secrets, "crm-deals", place) if place else None)

    @router.post("/v1/crm-deals:tie", openapi_extra=described_body(TieInput), responses={200: {"model": CrmDealOut}})
    async def tie_crm_deal(request: Request) -> Response:
        """Say whose a CRM's deal is: a lead's, or its account's only person's. What came of it before is mapped then.

        What was told of somebody else before stays with them.
        """
        principal = await authorise(request, "capture:write")
        body = await request.body()
        told = read_body(TieInput, body)
        source_id = SourceId(told.source_id)
        email = parse_email(told.email) if told.email is not None else None
        if told.email is not None and email is None:
            raise Invalid("look at /email", [FieldError("/email", "is not an email address")])

        async def make(tx: Tx) -> Response:
            connection = tx.connection
            await source_in(connection, source_id, runtime.keys)
            if told.account_id is not None:
                tied = await tie_to_account(_account_id(told.account_id), connection)
            else:
                lead_id = LeadId(told.lead_id.lower()) if told.lead_id is not None else None
                tied = await tie_to_lead(lead_id, email, connection, runtime)
            await tie_by_hand(source_id, told.deal_id, tied, principal.subject, runtime.clock.now(), connection)
            row = await queries.deal(connection, source_id, told.deal_id)
            assert row is not None, "it was written down just now"
            (out,) = await _out(connection, [row])
            return Response(out.model_dump_json(), media_type="application/json")

        return await decided(runtime.database, request, body, make)

    return router


def _account_id(text: str) -> AccountId:
    if not looks_like_id(text):
        raise NoSuchAccount(f"there is no account {text[:40]!r}")
    return AccountId(text.lower())


async def _out(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[CrmDealOut]:
    asked = {row["account_id"] for row in rows if row["lead_id"] is None and row["account_id"] is not None}
    people = await queries.people_of(connection, asked, SHOWN_PEOPLE) if asked else {}
    return [
        CrmDealOut(
            **{name: row[name] for name in row.keys() if name != "deliveries"},  # noqa: SIM118  # a record's iteration is over values
            why=WORDS[row["reason"]],
            people=[] if row["lead_id"] is not None else people.get(row["account_id"], []),
            waiting=len(row["deliveries"]),
        )
        for row in rows
    ]
