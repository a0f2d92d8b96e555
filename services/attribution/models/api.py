"""Models over HTTP: those that ship, and custom ones as versioned documents."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError, model_validator

from services.attribution.domain import Model, TotalsModel
from services.attribution.errors import ModelNotAvailable, ShippedModel
from services.attribution.models import queries
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.custom import STORE, ModelDocument, compile_model
from services.attribution.models.domain import SHIPPED
from services.attribution.models.handlers import begin_runs
from services.attribution.models.queries import Run, RunState
from services.attribution.models.simulating import Simulation, simulate
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.rules import (
    Decision,
    NoSuchVersion,
    StoredDocument,
    add_life,
    etag,
    expected_version,
    sent_within,
    time_to_come,
)
from shared.service import Runtime
from shared.web import (
    Endpoints,
    Input,
    Instant,
    Limit,
    Page,
    Principal,
    described_body,
    invalid,
    make_cursor,
    read_cursor,
    requires,
)

NEWEST = 2**31 - 1
COLUMNS = frozenset({"key", "keys", "period"})
"""What stands beside the models in a row of a comparison."""

ModelId = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Progress(BaseModel):
    """How far conversions are credited by a version: until that is done, the one before it serves.

    `rate` is in conversions a second.
    """

    version: int
    state: Literal["building", "serving"]
    done: int
    total: int
    rate: float | None
    seconds_left: float | None
    started_at: datetime
    finished_at: datetime | None


class Summary(BaseModel):
    """A model by the version that counts. `splits`: it divides single conversions, and does not only total channels.

    `whole`: each channel on a path has the conversion whole, so that credits sum to more than there is. `serving` is
    the version whose credits are told; `building` the one that takes its place when all conversions are credited.
    """

    model_id: str
    title: str
    kind: Literal["shipped", "custom"]
    base: str
    version: int
    lookback_days: float | None
    reset_after_conversion: bool = False
    splits: bool
    whole: bool = False
    order: int | None = None
    game: str | None = None
    serving: Progress | None = None
    building: Progress | None = None


class ModelOut(BaseModel):
    """One version of a custom model."""

    model_id: str
    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]
    serving: Progress | None = None
    building: Progress | None = None


class ActivateIn(Input):
    """Which version counts from now, or from a time to come, and why."""

    version: int = Field(ge=1, le=NEWEST)
    at: Instant | None = None
    reason: Annotated[str, Field(max_length=1_000)] = ""


class SimulateIn(Input):
    """What to try on the conversions of the last `days`: a saved version, or a document that is not saved."""

    version: int | None = Field(default=None, ge=1, le=NEWEST)
    document: ModelDocument | None = None
    days: int = Field(default=30, ge=1, le=3_660)

    @model_validator(mode="after")
    def _one_of_them(self) -> "SimulateIn":
        if (self.version is None) == (self.document is None):
            raise ValueError("send either version or document")
        return self


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of models."""
    made = Endpoints(tags=["models"])
    may_read = Depends(requires("attribution:read"))
    may_change = requires("attribution:write")
    catalogue = Catalogue()
    database = runtime.database
    _add_life(made, runtime)

    @made.get("/v1/models", dependencies=[may_read])
    async def models() -> Page[Summary]:
        """All models, those that ship with the product first."""
        async with database.reading() as connection:
            found = (await catalogue.active(connection)).values()
            runs = await queries.runs(connection)
        return Page(items=[_summary(model, runs) for model in found])

    @made.get("/v1/models/{model_id}", dependencies=[may_read])
    async def model(model_id: ModelId, response: Response) -> ModelOut | Summary:
        """The active version of a custom model, with its ETag, or a model that ships with the product."""
        async with database.reading() as connection:
            if model_id in SHIPPED:
                return _summary(SHIPPED[model_id], await queries.runs_of(connection, model_id))
            active = await STORE.active(connection, model_id)
            response.headers["ETag"] = etag(active.version)
            return await _out(connection, model_id, active)

    @made.put("/v1/models/{model_id}", openapi_extra=described_body(ModelDocument))
    async def save_model(
        request: Request,
        model_id: ModelId,
        principal: Annotated[Principal, Depends(may_change)],
        draft: Annotated[bool, Query(description="Only save it")] = False,
        reason: Annotated[str, Query(max_length=1_000, description="Why")] = "",
    ) -> ModelOut:
        """Save a new version and make it active, unless it is a draft; all conversions are credited by it anew.

        `If-Match` with the ETag of a version guards a change against others' changes.
        """
        _custom(model_id)
        if model_id in COLUMNS:
            fault = FieldError("path:model_id", "is what rows of a comparison are named by; take another")
            raise Invalid(f"{model_id} cannot name a model", [fault])
        document = _document(await request.body())
        compile_model(model_id, 0, document)
        decision = Decision(principal.subject, reason, expected=expected_version(request.headers.get("if-match")))
        async with database.transaction() as tx:
            stored = document.model_dump(mode="json")
            saved = await STORE.save(tx.connection, stored, decision, model_id, draft=draft)
            if not draft:
                await begin_runs(tx.connection)
            return await _out(tx.connection, model_id, saved)

    @made.get("/v1/models/{model_id}/versions", dependencies=[may_read])
    async def versions(model_id: ModelId, limit: Limit = 50, cursor: str | None = None) -> Page[ModelOut]:
        """All versions of a custom model, the newest first."""
        before = read_cursor(runtime.secrets, "model-versions", cursor) or NEWEST
        async with database.reading() as connection:
            found = await STORE.versions(connection, model_id, before=before, limit=limit + 1)
            if not found and cursor is None:
                raise NoSuchVersion(f"there is no custom model {model_id}")
            items = [await _out(connection, model_id, version) for version in found[:limit]]
        more = make_cursor(runtime.secrets, "model-versions", found[limit - 1].version) if len(found) > limit else None
        return Page(items=items, next_cursor=more)

    @made.post("/v1/models/{model_id}:activate")
    async def activate_model(
        request: Request, model_id: ModelId, body: ActivateIn, principal: Annotated[Principal, Depends(may_change)]
    ) -> ModelOut:
        """Switch to a version, also back, or plan it for a time to come; all conversions are credited by it anew."""
        expected = expected_version(request.headers.get("if-match"))
        decision = Decision(principal.subject, body.reason, expected=expected)
        async with database.transaction() as tx:
            version = await STORE.activate(tx.connection, body.version, decision, model_id, at=time_to_come(body.at))
            await begin_runs(tx.connection)
            return await _out(tx.connection, model_id, version)

    @made.post("/v1/models/{model_id}:simulate", dependencies=[may_read])
    async def simulate_model(model_id: ModelId, body: SimulateIn) -> Simulation:
        """What a version or a document would have made of the newest conversions, without effect."""
        async with database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            document = body.document
            if body.version is not None:
                stored = await STORE.version(connection, body.version, model_id)
                document = ModelDocument.model_validate(stored.document)
            assert document is not None
            with sent_within(sent=body.version is None):
                model = compile_model(model_id, body.version or 0, document)
            if isinstance(model, TotalsModel):
                raise ModelNotAvailable(f"{model.base} gives totals by channel; only models that split can be tried")
            since = runtime.clock.now() - timedelta(days=body.days)
            return await simulate(connection, catalogue, model, since)

    return made


def _add_life(made: APIRouter, runtime: Runtime) -> None:
    """Check, compare, plan, roll back and look back: before the paths that take whatever stands after the slash."""

    async def named(model_id: ModelId) -> str:
        """Which custom model a path means. Raises NoSuchVersion and ShippedModel."""
        _custom(model_id)
        async with runtime.database.reading() as connection:
            if not await STORE.versions(connection, model_id, limit=1):
                raise NoSuchVersion(f"there is no custom model {model_id}")
        return model_id

    def normal(document: dict[str, Any]) -> dict[str, Any]:
        return _document(orjson.dumps(document)).model_dump(mode="json")

    async def tell(connection: Connection, stored: StoredDocument, model_id: str) -> ModelOut:
        return await _out(connection, model_id, stored)

    add_life(
        made,
        runtime.database,
        runtime.secrets,
        STORE,
        path="/v1/models/{model_id}",
        shape=ModelDocument,
        check=lambda document: compile_model("", 0, _document(orjson.dumps(document))),
        tell=tell,
        answer=ModelOut,
        named=named,
        normal=normal,
        switched=begin_runs,
    )


def _custom(model_id: str) -> None:
    """Raises ShippedModel for a name that is not a custom model's."""
    if model_id in SHIPPED:
        raise ShippedModel(f"{model_id} is the name of a model that ships with the product; take another")


def _document(body: bytes) -> ModelDocument:
    try:
        return ModelDocument.model_validate_json(body)
    except ValidationError as exc:
        raise invalid(exc) from exc


async def _out(connection: Connection, model_id: str, stored: StoredDocument) -> ModelOut:
    runs = await queries.runs_of(connection, model_id)
    return ModelOut(
        model_id=model_id,
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
        serving=_progress(runs, model_id, "serving"),
        building=_progress(runs, model_id, "building"),
    )


def _progress(runs: Sequence[Run], model_id: str, state: RunState) -> Progress | None:
    found = next((run for run in runs if run.model_id == model_id and run.state == state), None)
    return None if found is None else Progress.model_validate(found, from_attributes=True)


def _summary(model: Model | TotalsModel, runs: Sequence[Run]) -> Summary:
    totals = model if isinstance(model, TotalsModel) else None
    split = None if isinstance(model, TotalsModel) else model
    return Summary(
        model_id=model.model_id,
        title=model.title,
        kind="shipped" if model.model_id in SHIPPED else "custom",
        base=model.base,
        version=model.version,
        lookback_days=None if model.lookback is None else model.lookback / timedelta(days=1),
        reset_after_conversion=split is not None and split.reset_after_conversion,
        splits=split is not None,
        whole=split is not None and split.whole,
        order=totals.order if totals and totals.base == "markov" else None,
        game=totals.game if totals and totals.base == "shapley" else None,
        serving=_progress(runs, model.model_id, "serving"),
        building=_progress(runs, model.model_id, "building"),
    )
