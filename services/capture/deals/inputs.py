"""What is told and shown about deals of CRMs."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from services.capture.deals.domain import Reason
from services.capture.facts.inputs import LeadIdText
from services.capture.reading import Strict
from shared.ids import AccountId, LeadId, SourceId

Name = Annotated[str, Field(min_length=1, max_length=200)]


class TieInput(Strict):
    """A deal, by its source and the CRM's id, and whose it is: exactly one of the lead, an address, the account."""

    source_id: Name
    deal_id: Name
    lead_id: LeadIdText | None = None
    email: Annotated[str, Field(max_length=320)] | None = None
    account_id: Name | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.lead_id, self.email, self.account_id)) != 1:
            raise ValueError("say exactly one of lead_id, email and account_id")
        return self


class CrmDealOut(BaseModel):
    """A deal of a CRM, and whose it is. `people` are those of its account, as many as are shown, while it is nobody's.

    `waiting` is how many of its deliveries wait to be mapped.
    """

    source_id: SourceId
    deal_id: str
    stage: str | None
    lead_id: LeadId | None
    account_id: AccountId | None
    reason: Reason
    why: str
    people: list[LeadId]
    waiting: int
    tied_by: str | None
    first_at: datetime
    last_at: datetime
