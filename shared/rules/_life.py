"""The rest of a rule document's life over HTTP: check, compare, plan, call off, roll back, look back."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field
from starlette.requests import Request

from shared.db import Connection, Database, Tx
from shared.errors import FieldError, Malformed, Rejected
from shared.rules._activations import Activation, State, activations, call_off, expected_version
from shared.rules._difference import difference
from shared.rules._documents import DEFAULT, Decision, DocumentStore, StoredDocument
from shared.secrets import Secrets
from shared.web import Input, Limit, Page, Principal, described_body, idempotent, make_cursor, read_cursor, requires

NEWEST = 2**31 - 1
LAST = 2**62
Check = Callable[[dict[str, Any]], object]
Normal = Callable[[dict[str, Any]], dict[str, Any]]
Switched = Callable[[Connection], Awaitable[None]]
Tell = Callable[[Connection, StoredDocument, str], Awaitable[BaseModel]]
Reason = Annotated[str, Field(max_length=1_000)]
VersionParam = Annotated[int, Path(ge=1, le=NEWEST)]
FromQuery = Annotated[int | None, Query(alias="from", ge=1, le=NEWEST)]
ToQuery = Annotated[int | None, Query(alias="to", ge=1, le=NEWEST)]


def the_only_one() -> str:
    """The name of the document of a kind that has a single one."""
    return DEFAULT


class FaultOut(BaseModel):
    """A fault of a document: where it stands, what is wrong, and the column inside of an expression."""

    pointer: str
    detail: str
    column: int | None = None

    @classmethod
    def of(cls, faults: Sequence[FieldError]) -> "list[FaultOut]":
        """What is told of these."""
        return [cls(pointer=one.pointer, detail=one.detail, column=one.column) for one in faults]


class ValidationOut(BaseModel):
    """Whether a document could be saved, everything that is wrong with it, and what may be a mistake in it."""

    valid: bool
    errors: list[FaultOut]
    warnings: list[FaultOut] = Field(default_factory=list)

    @classmethod
    def of(cls, faults: Sequence[FieldError], warnings: Sequence[FieldError] = ()) -> "ValidationOut":
        """What is told of these."""
        return cls(valid=not faults, errors=FaultOut.of(faults), warnings=FaultOut.of(warnings))


TryOut = Callable[[Request, dict[str, Any]], Awaitable[ValidationOut]]


class RollbackIn(Input):
    """Why the version that counts now is taken back."""

    reason: Reason = ""
    announce: bool = True


class ActivationOut(BaseModel):
    """A version counts from `effective_at` on; who decided it, when and why. Its `id` names it."""

    id: int
    version: int
    state: State
    author: str
    effective_at: datetime
    decided_at: datetime | None
    reason: str
    announce: bool
    rollback: bool
    cancelled_by: str | None
    cancelled_at: datetime | None


class DifferenceOut(BaseModel):
    """What must happen to version `from` to make version `to` (null: a document that is not saved) of it."""

    from_version: int = Field(serialization_alias="from")
    to_version: int | None = Field(serialization_alias="to")
    same: bool
    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    moved: list[dict[str, Any]]
    values: list[dict[str, Any]]
    patch: list[dict[str, Any]]


def add_life(  # noqa: PLR0913  # what a kind of document is made of
    router: APIRouter,
    database: Database,
    secrets: Secrets,
    store: DocumentStore,
    *,
    path: str,
    check: Check,
    shape: type[BaseModel],
    tell: Tell,
    answer: type[BaseModel],
    named: Callable[..., str | Awaitable[str]] = the_only_one,
    normal: Normal | None = None,
    switched: Switched | None = None,
    try_out: TryOut | None = None,
) -> None:
    """The endpoints beside those that read, save and activate a document.

    Of a kind with many documents `named` is a dependency that answers which one the path means. `shape` is what callers
    are told that a document looks like. `normal` writes a valid document as it would be saved, where that differs from
    what was sent. `switched` is done in the transaction of a rollback, before it is told. `try_out` says what `check`
    cannot, by what else there is.
    """
    name_of = Depends(named)
    may_read = Depends(requires(f"{database.service}:read"))
    may_change = requires(f"{database.service}:write")

    @router.get(f"{path}/versions/{{version}}", dependencies=[may_read], response_model=answer)
    async def version_of_document(version: VersionParam, response: Response, name: str = name_of) -> BaseModel:
        """One version."""
        response.headers["ETag"] = etag(version)
        async with database.reading() as connection:
            return await tell(connection, await store.version(connection, version, name), name)

    # Also under a name that nothing is saved under yet.
    names = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    as_put = described_body(shape)
    in_path = {**as_put, "parameters": names} if names else as_put

    @router.post(f"{path}:validate", dependencies=[may_read], openapi_extra=in_path)
    async def validate_document(request: Request) -> ValidationOut:
        """Everything that is wrong with a document, which is not saved. The body is the document, as in PUT."""
        sent = unwrapped(json_object(await request.body()))
        return validation(check, sent) if try_out is None else await try_out(request, sent)

    @router.get(f"{path}:diff", dependencies=[may_read])
    async def differences(
        from_version: FromQuery = None, to_version: ToQuery = None, name: str = name_of
    ) -> DifferenceOut:
        """What is different between two versions: `from` the one that counts to the newest, unless said otherwise."""
        async with database.reading() as connection:
            one = await _version(store, connection, from_version, name)
            if to_version is None:
                other = (await store.versions(connection, name, limit=1))[0]
            else:
                other = await store.version(connection, to_version, name)
        return _difference(one, other.document, other.version)

    @router.post(f"{path}:diff", dependencies=[may_read], openapi_extra=as_put)
    async def differences_to_document(
        request: Request, from_version: FromQuery = None, name: str = name_of
    ) -> DifferenceOut:
        """What a document would change of the version that counts, or of another one. The body is as in PUT."""
        document = unwrapped(json_object(await request.body()))
        document = document if normal is None else normal(document)
        async with database.reading() as connection:
            return _difference(await _version(store, connection, from_version, name), document, None)

    @router.get(f"{path}/activations", dependencies=[may_read])
    async def document_activations(
        state: State | None = None, limit: Limit = 50, cursor: str | None = None, name: str = name_of
    ) -> Page[ActivationOut]:
        """Which version counted when, by whom and why, with what is planned and was called off; the last first."""
        before = read_cursor(secrets, "rule-activations", cursor) or LAST
        async with database.reading() as connection:
            await store.active_version(connection, name)
            found = await activations(connection, store.kind, name, before=before, limit=limit + 1, state=state)
        more = make_cursor(secrets, "rule-activations", found[limit - 1].sequence) if len(found) > limit else None
        return Page(items=[_out(one) for one in found[:limit]], next_cursor=more)

    @router.delete(f"{path}/activations/{{activation_id}}")
    async def call_off_activation(
        activation_id: Annotated[int, Path(ge=1, le=LAST)],
        principal: Annotated[Principal, Depends(may_change)],
        name: str = name_of,
    ) -> ActivationOut:
        """Call off what is planned."""
        async with database.transaction() as tx:
            return _out(await call_off(tx.connection, store.kind, name, activation_id, principal.subject))

    @router.post(f"{path}:rollback", response_model=answer, openapi_extra=described_body(RollbackIn, required=False))
    async def roll_back_document(
        request: Request, principal: Annotated[Principal, Depends(may_change)], name: str = name_of
    ) -> Response:
        """Go back to the version that counted before; again goes back one more. What is planned stays planned."""
        body = await request.body()
        given = RollbackIn.model_validate(json_object(body) if body.strip() else {})
        expected = expected_version(request.headers.get("if-match"))
        decision = Decision(principal.subject, given.reason, given.announce, expected)

        async def make(tx: Tx) -> Response:
            back = await store.roll_back(tx.connection, decision, name)
            if switched is not None:
                await switched(tx.connection)
            told = await tell(tx.connection, back, name)
            headers = {"ETag": etag(back.version)}
            return Response(told.model_dump_json(), 200, headers, media_type="application/json")

        return await idempotent(database, request, body, make)


def etag(version: int) -> str:
    """What `If-Match` is sent with, so that a change is only made of what its author knows."""
    return f'"{version}"'


def json_object(body: bytes) -> dict[str, Any]:
    """The document in a request's body. Raises Malformed."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")]) from exc
    if not isinstance(document, dict):
        raise Malformed("a rule document is a JSON object", [FieldError("", "is not an object")])
    return document


def unwrapped(body: dict[str, Any]) -> dict[str, Any]:
    """The document itself, also where it was sent as `:simulate` takes it; no kind has a field of that name."""
    document = body.get("document")
    return document if isinstance(document, dict) and len(body) == 1 else body


def validation(check: Check, document: dict[str, Any]) -> ValidationOut:
    """Whether a document could be saved, and what is wrong with it."""
    return ValidationOut.of(faults_of(check, document))


def faults_of(check: Check, document: dict[str, Any]) -> list[FieldError]:
    """What is wrong with a document."""
    try:
        check(document)
    except Rejected as exc:
        return list(exc.errors) or [FieldError("", exc.detail)]
    return []


async def _version(store: DocumentStore, connection: Connection, version: int | None, name: str) -> StoredDocument:
    return await (store.active(connection, name) if version is None else store.version(connection, version, name))


def _difference(one: StoredDocument, other: Mapping[str, Any], version: int | None) -> DifferenceOut:
    found = difference(one.document, other).as_json()
    return DifferenceOut(from_version=one.version, to_version=version, **found)


def _out(one: Activation) -> ActivationOut:
    named = {name: getattr(one, name) for name in Activation.__slots__ if name != "sequence"}
    return ActivationOut(id=one.sequence, **named)
