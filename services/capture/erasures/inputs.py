"""What callers say about an erasure, and the receipt they get."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from services.capture.erasures.domain import State
from services.capture.reading import Strict
from shared.ids import LeadId

Line = Annotated[str, Field(min_length=1, max_length=500)]


class ErasureInput(Strict):
    """Why somebody is erased. It is kept in the receipt, so it must not name the person."""

    reason: Line | None = None
    requested_by: Line | None = None
    reference: Annotated[Line | None, Field(description="The case, by the name you have for it")] = None


class ServiceErased(BaseModel):
    """What one service erased and kept, in rows, and why it was kept."""

    state: State
    erased: dict[str, int]
    kept: dict[str, int]
    why_kept: dict[str, str]
    at: datetime | None


class Remains(BaseModel):
    """What cannot be erased before its time, and when that is over."""

    what: str
    until: datetime


class Receipt(BaseModel):
    """What an erasure did. It holds nothing personal; `signature` proves that this installation said so.

    `running` until every service has reported. `lead_ids` are all ids whose personal data is unreadable from
    `erased_at` on. Of somebody who was erased before there were receipts there is no `receipt_id`.
    """

    model_config = ConfigDict(frozen=True)

    receipt_id: str | None
    lead_id: LeadId
    lead_ids: list[LeadId]
    erased_at: datetime
    state: State
    completed_at: datetime | None = None
    reason: str | None = None
    requested_by: str | None = None
    reference: str | None = None
    origin: str | None = None
    services: dict[str, ServiceErased]
    remains: list[Remains]
    signature: str | None = None


class SignedReceipt(BaseModel):
    """A receipt as it was answered, signature included."""

    model_config = ConfigDict(extra="allow")

    receipt_id: str
    signature: str

    def content(self) -> dict[str, Any]:
        """What was signed."""
        return {**(self.model_extra or {}), "receipt_id": self.receipt_id}


class Verified(BaseModel):
    """Whether this installation signed a receipt exactly so."""

    genuine: bool
