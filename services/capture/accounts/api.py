"""Accounts over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.capture.accounts.choosing import choose_account, leads_of_account, match_account
from services.capture.accounts.domain import clues_of
from services.capture.accounts.handlers import merge_accounts, patch_account, upsert_account
from services.capture.accounts.inputs import (
    AccountInput,
    AccountMergeInput,
    AccountOut,
    AccountPatch,
    ChoiceInput,
    MatchInput,
    MatchOut,
    OneAccountOut,
    parse_domain,
)
from services.capture.accounts.listing import Sought, find_accounts
from services.capture.accounts.matching import preview
from services.capture.accounts.views import account_out, accounts_out, match_out
from services.capture.deciding import decided
from services.capture.errors import NoSuchAccount
from services.capture.facts.domain import API
from services.capture.leads.inputs import LeadOut
from services.capture.leads.telling import Cause
from services.capture.leads.views import lead_out, leads_out
from services.capture.reading import lead_id_of, looks_like_id, read_body
from shared.db import Tx
from shared.errors import FieldError, Invalid
from shared.ids import AccountId
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, Principal, authorise, described_body, make_cursor, read_cursor, requires

JSON = "application/json"
CREATED = 201
OK = 200
LONGEST_NAME = 500


def accounts_router(runtime: Runtime) -> APIRouter:
    """The endpoints about accounts, and about the account of a lead."""
    router = Endpoints(tags=["accounts"])
    _add_accounts(router, runtime)
    _add_lists(router, runtime)
    _add_choices(router, runtime)
    return router


def _add_accounts(router: APIRouter, runtime: Runtime) -> None:
    @router.post(
        "/v1/accounts",
        status_code=CREATED,
        openapi_extra=described_body(AccountInput),
        responses={CREATED: {"model": OneAccountOut}, OK: {"model": OneAccountOut, "description": "It was known"}},
    )
    async def post_account(request: Request) -> Response:
        """Make an account, or update the one known by its external id, else by a domain."""
        await authorise(request, "capture:write")
        body = await request.body()
        told = read_body(AccountInput, body).model_dump(exclude_none=True)

        async def make(tx: Tx) -> Response:
            account_id, created = await upsert_account(told, runtime.clock.now(), tx, runtime)
            return _answer(await account_out(tx.connection, account_id), CREATED if created else OK)

        return await decided(runtime.database, request, body, make)

    @router.post("/v1/accounts:match", openapi_extra=described_body(MatchInput), responses={OK: {"model": MatchOut}})
    async def match(request: Request) -> Response:
        """Which account a lead with these clues would belong to, what else was weighed, and what decided; no effect."""
        await authorise(request, "capture:read")
        asked = read_body(MatchInput, await request.body())
        email = asked.email or (f"x@{_host(asked.domain)}" if asked.domain else None)
        clues = clues_of(email, asked.name, asked.country, asked.phone)
        async with runtime.database.reading() as connection:
            naming, makes_account = await preview(connection, clues)
            return _answer(await match_out(connection, naming, makes_account=makes_account), OK)

    @router.patch(
        "/v1/accounts/{account_id}",
        openapi_extra=described_body(AccountPatch),
        responses={OK: {"model": OneAccountOut}},
    )
    async def change_account(request: Request, account_id: str) -> Response:
        """Change an account; null takes a field back."""
        await authorise(request, "capture:write")
        body = await request.body()
        told = read_body(AccountPatch, body).model_dump(exclude_unset=True)

        async def make(tx: Tx) -> Response:
            changed = await patch_account(_account_id(account_id), told, runtime.clock.now(), tx, runtime)
            return _answer(await account_out(tx.connection, changed), OK)

        return await decided(runtime.database, request, body, make)

    @router.post(
        "/v1/accounts/{account_id}:merge",
        openapi_extra=described_body(AccountMergeInput),
        responses={OK: {"model": OneAccountOut}},
    )
    async def merge(request: Request, account_id: str) -> Response:
        """Say that two accounts are one company. Its leads follow in the background."""
        await authorise(request, "capture:write")
        body = await request.body()
        asked = read_body(AccountMergeInput, body)

        async def make(tx: Tx) -> Response:
            into = _account_id(asked.into) if asked.into else None
            one, other = _account_id(account_id), _account_id(asked.with_account)
            stayed = await merge_accounts(one, other, into, runtime.clock.now(), tx, runtime)
            return _answer(await account_out(tx.connection, stayed), OK)

        return await decided(runtime.database, request, body, make)


def _add_lists(router: APIRouter, runtime: Runtime) -> None:
    may_read = [Depends(requires("capture:read"))]

    @router.get("/v1/accounts", dependencies=may_read)
    async def list_accounts(  # noqa: PLR0913  # the filters
        domain: Annotated[str | None, Query(description="Also a host name or address at it")] = None,
        name: Annotated[str | None, Query(max_length=LONGEST_NAME, description="Legal form aside")] = None,
        external_id: str | None = None,
        parent_id: Annotated[str | None, Query(description="Those directly below it")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[AccountOut]:
        """Accounts, newest first; by name or parent in the order of their ids."""
        sought = Sought(
            domain=_host(domain, "query:domain") if domain else None,
            name=name,
            external_id=external_id,
            parent_id=_account_id(parent_id) if parent_id else None,
        )
        async with runtime.database.reading() as connection:
            place = read_cursor(runtime.secrets, "accounts", cursor)
            found, next_place = await find_accounts(connection, sought, place, limit)
            items = await accounts_out(connection, found)
        more = make_cursor(runtime.secrets, "accounts", next_place) if next_place else None
        return Page(items=items, next_cursor=more)

    @router.get("/v1/accounts/{account_id}", dependencies=may_read)
    async def get_account(account_id: str) -> OneAccountOut:
        """An account with its place in the hierarchy; the one that stayed, where it was merged."""
        async with runtime.database.reading() as connection:
            return await account_out(connection, _account_id(account_id))

    @router.get("/v1/accounts/{account_id}/leads", dependencies=may_read)
    async def list_leads_of_account(account_id: str, limit: Limit = 50, cursor: str | None = None) -> Page[LeadOut]:
        """The leads of an account, in the order of their ids."""
        after = read_cursor(runtime.secrets, "account-leads", cursor) or ""
        async with runtime.database.reading() as connection:
            found = await leads_of_account(_account_id(account_id), after, limit + 1, connection)
            shown = await leads_out(connection, found[:limit], runtime)
            items = [shown[lead_id] for lead_id in found[:limit]]
        more = make_cursor(runtime.secrets, "account-leads", found[limit - 1]) if len(found) > limit else None
        return Page(items=items, next_cursor=more)


def _add_choices(router: APIRouter, runtime: Runtime) -> None:
    may_write = Depends(requires("capture:write"))

    @router.put(
        "/v1/leads/{lead_id}/account", openapi_extra=described_body(ChoiceInput), responses={OK: {"model": LeadOut}}
    )
    async def put_account(request: Request, lead_id: str, principal: Annotated[Principal, may_write]) -> Response:
        """Let a lead belong to this account, whatever matches later."""
        asked = read_body(ChoiceInput, await request.body())
        return await _chosen(request, lead_id, AccountId(asked.account_id.lower()), principal)

    @router.delete("/v1/leads/{lead_id}/account", responses={OK: {"model": LeadOut}})
    async def delete_account(request: Request, lead_id: str, principal: Annotated[Principal, may_write]) -> Response:
        """Let a lead belong to no account, whatever matches later."""
        return await _chosen(request, lead_id, None, principal)

    async def _chosen(request: Request, lead_id: str, account_id: AccountId | None, principal: Principal) -> Response:
        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            root = await choose_account(
                lead_id_of(lead_id), account_id, principal.subject, Cause(API, now, now), tx, runtime
            )
            return _answer(await lead_out(tx.connection, root, runtime), OK)

        return await decided(runtime.database, request, await request.body(), make)

    @router.post("/v1/leads/{lead_id}/account:match", responses={OK: {"model": LeadOut}}, dependencies=[may_write])
    async def match_lead(request: Request, lead_id: str) -> Response:
        """Forget what was chosen by hand, and let matching say which account a lead belongs to."""

        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            root = await match_account(lead_id_of(lead_id), Cause(API, now, now), tx, runtime)
            return _answer(await lead_out(tx.connection, root, runtime), OK)

        return await decided(runtime.database, request, await request.body(), make)


def _account_id(text: str) -> AccountId:
    if not looks_like_id(text):
        raise NoSuchAccount(f"there is no account {text[:40]!r}")
    return AccountId(text.lower())


def _host(text: str, place: str = "/domain") -> str:
    try:
        return parse_domain(text)
    except ValueError as exc:
        raise Invalid(f"look at {place}", [FieldError(place, str(exc))]) from exc


def _answer(out: BaseModel, status: int) -> Response:
    return Response(out.model_dump_json(), status, media_type=JSON)
