"""What may be told about a deal."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from services.routing.deals.lines import MOST_MINOR, Line
from services.routing.deals.pipeline import PipelineId, ReasonId, StageId
from shared.ids import LeadId
from shared.money import Currency
from shared.web import CalendarDay, Input, OccurredAt

Minor = Annotated[int, Field(strict=True, ge=0, le=MOST_MINOR, description="Whole minor units")]
Recurring = Annotated[
    int,
    Field(
        strict=True,
        ge=0,
        le=MOST_MINOR,
        description="What it brings every month, in whole minor units: ARR is 12 times it. Computed where lines recur",
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Note = Annotated[str, Field(min_length=1, max_length=4_000)]
Id = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
Role = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", examples=["decision_maker", "champion", "economic_buyer", "user"])
]
Lines = Annotated[tuple[Line, ...], Field(max_length=200)]


class Stakeholder(Input):
    """A person who has a part in a deal, besides the lead whose it is."""

    lead_id: Id
    role: Role


Stakeholders = Annotated[tuple[Stakeholder, ...], Field(max_length=50)]


class Notes(Input):
    """What is written about a deal with a person: kept sealed with the person's key. Null takes one away."""

    contract_terms: Note | None = None
    scope: Note | None = None
    use_case: Note | None = None
    success_criteria: Note | None = None
    risks: Note | None = None
    promises: Note | None = None


class Terms(Input):
    """What a deal is about, as far as it is told. With `lines` its value and what recurs are computed from them."""

    recurring_minor: Recurring | None = None
    lines: Lines | None = None
    expected_close_on: CalendarDay | None = None
    contract_starts_on: CalendarDay | None = None
    contract_ends_on: CalendarDay | None = None
    stakeholders: Stakeholders | None = None
    notes: Notes | None = None
    rep_id: Id | None = None
    pipeline: PipelineId | None = None

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        starts, ends = self.contract_starts_on, self.contract_ends_on
        if starts is not None and ends is not None and ends < starts:
            raise ValueError("contract_ends_on lies before contract_starts_on")
        return self


class DealInput(Terms):
    """A new deal. Without a stage it starts in the pipeline's first, without `occurred_at` now."""

    lead_id: Id
    external_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    name: Text
    value_minor: Minor | None = None
    currency: Currency
    stage: StageId | None = None
    renewal_of: Id | None = None
    occurred_at: OccurredAt | None = None

    @property
    def lead(self) -> LeadId:
        """Whose deal it is."""
        return LeadId(self.lead_id)

    def as_json(self) -> dict[str, Any]:
        """What was told, to recognise it when it is told again."""
        return self.model_dump(mode="json", exclude_none=True)


class DealChange(Terms):
    """A change of a deal: of its fields, or its end: `won`, or `lost` with a reason.

    Null takes a date, the rep or what recurs away. `force`, with a `reason`, moves or wins it though the stage it
    leaves still misses something, where that stage allows it.
    """

    name: Text | None = None
    stage: StageId | None = None
    value_minor: Minor | None = None
    won: Literal[True] | None = None
    lost: Literal[True] | None = None
    lost_reason: ReasonId | None = None
    force: bool = False
    reason: Text | None = None
    occurred_at: OccurredAt | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.won and self.lost:
            raise ValueError("a deal is won or lost, not both")
        if (self.stage is not None or self.pipeline is not None) and (self.won or self.lost):
            raise ValueError("a deal that ends enters no stage")
        if self.lost_reason is not None and not self.lost:
            raise ValueError("only a lost deal has a lost_reason")
        if self.force and self.reason is None:
            raise ValueError("to force a move takes a reason")
        if self.reason is not None and not (self.lost or self.force):
            raise ValueError("only a lost deal has a reason, or a move that is forced")
        return self


class Reopening(Input):
    """Why a closed deal is open again, and where: without a stage, where it stood when it was closed."""

    reason: Text
    stage: StageId | None = None
    occurred_at: OccurredAt | None = None


class PastChange(Terms):
    """A change of the past, as an import tells it: as a `DealChange`, at its time."""

    occurred_at: OccurredAt
    stage: StageId | None = None
    value_minor: Minor | None = None
    won: Literal[True] | None = None
    lost: Literal[True] | None = None
    lost_reason: ReasonId | None = None
    reopened: Literal[True] | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if sum(map(bool, (self.won, self.lost, self.reopened))) > 1:
            raise ValueError("a deal is won, lost or reopened in one change")
        if self.stage is not None and (self.won or self.lost):
            raise ValueError("a deal that ends enters no stage")
        if self.reopened and self.stage is None:
            raise ValueError("a deal that is reopened enters a stage")
        if self.notes is not None or self.pipeline is not None:
            raise ValueError("notes and pipeline are told of the deal, not of a change of its past")
        return self


class PastDeal(DealInput):
    """A deal with all its past, one line of an import: told again, whatever is new of it is added.

    `email` may name the lead in place of `lead_id`; `occurred_at` is when the deal was opened, `reason` why lost.
    """

    lead_id: Id = ""
    email: Annotated[str, Field(max_length=320)] | None = None
    external_id: Annotated[str, Field(min_length=1, max_length=200)]
    occurred_at: OccurredAt
    reason: Text | None = None
    changes: Annotated[tuple[PastChange, ...], Field(max_length=1_000)] = ()

    @model_validator(mode="after")
    def _names_one_lead(self) -> Self:
        if bool(self.lead_id) == (self.email is not None):
            raise ValueError("name the lead by lead_id or by email, one of them")
        return self
