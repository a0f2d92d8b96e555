"""What may be told about a deal."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from services.routing.deals.pipeline import StageId
from shared.ids import LeadId
from shared.money import Currency
from shared.web import Input, OccurredAt

Minor = Annotated[int, Field(strict=True, ge=0, le=10**15, description="Whole minor units")]
Recurring = Annotated[
    int,
    Field(
        strict=True, ge=0, le=10**15, description="What it brings every month, in whole minor units: ARR is 12 times it"
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Id = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]


class DealInput(Input):
    """A new deal. Without a stage it starts in the pipeline's first, without `occurred_at` now."""

    lead_id: Id
    external_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    name: Text
    value_minor: Minor
    currency: Currency
    recurring_minor: Recurring | None = None
    stage: StageId | None = None
    occurred_at: OccurredAt | None = None

    @property
    def lead(self) -> LeadId:
        """Whose deal it is."""
        return LeadId(self.lead_id)

    def as_json(self) -> dict[str, Any]:
        """What was told, to recognise it when it is told again."""
        return self.model_dump(mode="json", exclude_none=True)


class DealChange(Input):
    """A change of a deal: of its fields, or its end: `won`, or `lost` with a reason."""

    name: Text | None = None
    stage: StageId | None = None
    value_minor: Minor | None = None
    recurring_minor: Recurring | None = None
    won: Literal[True] | None = None
    lost: Literal[True] | None = None
    reason: Text | None = None
    occurred_at: OccurredAt | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "DealChange":
        if self.won and self.lost:
            raise ValueError("a deal is won or lost, not both")
        if self.stage is not None and (self.won or self.lost):
            raise ValueError("a deal that ends enters no stage")
        if self.reason is not None and not self.lost:
            raise ValueError("only a lost deal has a reason")
        return self
