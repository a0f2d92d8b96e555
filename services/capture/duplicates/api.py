"""Suggestions of who may be whom, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.capture.deciding import decided
from services.capture.duplicates.domain import SUGGESTED_FROM, Says
from services.capture.duplicates.handlers import Suggestion, dismiss, suggested, suggestions_of
from services.capture.facts.inputs import LeadIdText
from services.capture.leads.domain import Profile
from services.capture.leads.finding import EmailQuery, lead_with_address
from services.capture.leads.merging import locked_persons
from services.capture.leads.views import family_of
from services.capture.reading import Strict, lead_id_of, read_body
from shared.db import Tx
from shared.ids import LeadId
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, authorise, described_body, make_cursor, read_cursor, requires

MinScore = Annotated[int, Query(ge=0, le=100, description="The least score; below 40 nothing is kept")]


class DismissInput(Strict):
    """The lead that is somebody else."""

    with_lead: Annotated[LeadIdText, Field(alias="with")]


class ReasonOut(BaseModel):
    """What one field says: `same`, `alike` or `different`, how alike (0 to 100), and the points it adds or takes."""

    field: str
    says: Says
    likeness: int
    points: int


class DoubleOut(BaseModel):
    """A person, as far as it takes to tell whether it is the same one."""

    lead_id: LeadId
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    company: str | None
    country: str | None


class LikenessOut(BaseModel):
    """Somebody who may be the same person. An accepted suggestion is `:merge`, a refused one `duplicates:dismiss`."""

    score: int
    reasons: list[ReasonOut]
    lead: DoubleOut


class PairOut(BaseModel):
    """Two people who may be one."""

    score: int
    reasons: list[ReasonOut]
    leads: list[DoubleOut]


class DuplicatesOut(BaseModel):
    """Everybody that a person may be, the likeliest first."""

    lead_id: LeadId
    items: list[LikenessOut]


class DismissedOut(BaseModel):
    """Two people who are not the same: neither suggested nor tied by a call again."""

    lead_id: LeadId
    other_id: LeadId


def duplicates_router(runtime: Runtime) -> APIRouter:
    """The endpoints about duplicates."""
    router = Endpoints(tags=["duplicates"])
    may_read = [Depends(requires("capture:read"))]

    @router.get("/v1/duplicates", dependencies=may_read)
    async def list_duplicates(
        min_score: MinScore = SUGGESTED_FROM, limit: Limit = 50, cursor: str | None = None
    ) -> Page[PairOut]:
        """Pairs of people who may be one, the likeliest first. Those that no longer hold are left out."""
        place = read_cursor(runtime.secrets, "duplicates", cursor)
        after = (int(place[0]), str(place[1]), str(place[2])) if place else None
        async with runtime.database.reading() as connection:
            found, more = await suggested(connection, runtime.keys, min_score, after, limit)
        return Page(
            items=[_pair_out(one) for one in found],
            next_cursor=make_cursor(runtime.secrets, "duplicates", list(more)) if more else None,
        )

    @router.get("/v1/leads/{lead_id}/duplicates", dependencies=may_read)
    async def duplicates_of_lead(lead_id: str, min_score: MinScore = SUGGESTED_FROM) -> DuplicatesOut:
        """Everybody that the person behind a lead id may be, with the reasons, the likeliest first."""
        async with runtime.database.reading() as connection:
            root = (await family_of(connection, lead_id_of(lead_id), runtime.keys)).root.lead_id
            found = await suggestions_of(connection, [root], runtime.keys)
        items = [_likeness_out(root, one) for one in found if one.likeness.score >= min_score]
        return DuplicatesOut(lead_id=root, items=items)

    @router.get("/v1/leads:duplicates", dependencies=may_read)
    async def duplicates_by_email(email: EmailQuery, min_score: MinScore = SUGGESTED_FROM) -> DuplicatesOut:
        """The same by `?email=`."""
        async with runtime.database.reading() as connection:
            lead_id = await lead_with_address(connection, runtime.ids, email)
        return await duplicates_of_lead(lead_id, min_score)

    @router.post(
        "/v1/leads/{lead_id}/duplicates:dismiss",
        openapi_extra=described_body(DismissInput),
        responses={200: {"model": DismissedOut}},
    )
    async def dismiss_duplicate(request: Request, lead_id: str) -> Response:
        """Say that two leads are different people. A `:merge` by hand takes it back."""
        await authorise(request, "capture:write")
        body = await request.body()
        asked = read_body(DismissInput, body)

        async def make(tx: Tx) -> Response:
            with_lead = LeadId(asked.with_lead.lower())
            one, other = await locked_persons(lead_id_of(lead_id), with_lead, tx.connection, runtime.keys)
            await dismiss(tx.connection, one, other)
            out = DismissedOut(lead_id=one.root.lead_id, other_id=other.root.lead_id)
            return Response(out.model_dump_json(), media_type="application/json")

        return await decided(runtime.database, request, body, make)

    return router


def _reasons_out(suggestion: Suggestion) -> list[ReasonOut]:
    return [
        ReasonOut(field=one.field, says=one.says, likeness=one.likeness, points=one.points)
        for one in suggestion.likeness.reasons
    ]


def _likeness_out(lead_id: LeadId, suggestion: Suggestion) -> LikenessOut:
    place = 0 if suggestion.other_id == lead_id else 1
    other_id = (suggestion.lead_id, suggestion.other_id)[place]
    double = _double_out(other_id, suggestion.profiles[place])
    return LikenessOut(score=suggestion.likeness.score, reasons=_reasons_out(suggestion), lead=double)


def _pair_out(suggestion: Suggestion) -> PairOut:
    ids = (suggestion.lead_id, suggestion.other_id)
    leads = [_double_out(lead_id, profile) for lead_id, profile in zip(ids, suggestion.profiles, strict=True)]
    return PairOut(score=suggestion.likeness.score, reasons=_reasons_out(suggestion), leads=leads)


def _double_out(lead_id: LeadId, profile: Profile) -> DoubleOut:
    return DoubleOut(
        lead_id=lead_id,
        email=profile.email,
        phone=profile.phone,
        first_name=profile.first_name,
        last_name=profile.last_name,
        company=profile.company,
        country=profile.country,
    )
