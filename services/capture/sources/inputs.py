"""What callers send about sources, and what they get; secrets leave only in the answer to the call that made them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from services.capture.reading import FreeObject, Strict

Secret = Annotated[str, Field(min_length=1, max_length=2_000)]
SourceName = Annotated[str, Field(min_length=1, max_length=200)]


class SourceInput(Strict):
    """A webhook source. `mapping` says where fields stand in its bodies, `defaults` what to assume."""

    kind: Annotated[str, Field(max_length=100)]
    name: SourceName
    secret: Secret | None = None
    mapping: FreeObject = Field(default_factory=dict)
    defaults: FreeObject = Field(default_factory=dict)


class SourcePatch(Strict):
    """What of a source is to change."""

    name: SourceName | None = None
    mapping: FreeObject | None = None
    defaults: FreeObject | None = None


class SecretInput(Strict):
    """A secret of one's own; without it one is made."""

    secret: Secret | None = None


class SecretOut(BaseModel):
    """A secret that a source has or had, by its number."""

    n: int
    created_at: datetime
    retired_at: datetime | None = None


class SourceOut(BaseModel):
    """A source, without its secrets."""

    source_id: str
    kind: str
    name: str
    hook_url: str
    mapping: dict[str, Any]
    defaults: dict[str, Any]
    has_credential: bool
    secrets: list[SecretOut]
    created_at: datetime
    updated_at: datetime


class NewSource(SourceOut):
    """A source just made, with its secret: shown this once."""

    secret: str


class NewSecret(SecretOut):
    """A secret just added: shown this once."""

    secret: str


class CredentialInput(Strict):
    """What proves us to the provider when it is asked about a delivery; null removes it."""

    credential: Secret | None


DeliveryState = Literal["mapped", "ignored", "quarantined", "pending"]


class ToldOut(BaseModel):
    """A fact that a delivery told."""

    kind: str
    idempotency_key: str


class DeliveryOut(BaseModel):
    """What became of a delivery, and how often it was `received`; `reason` says why it was ignored or not mapped."""

    delivery_id: str
    state: DeliveryState
    facts: int
    told: list[ToldOut]
    lead_id: str | None = None
    reason: str | None = None
    received: int
    received_at: datetime
    handled_at: datetime


class ShownDelivery(DeliveryOut):
    """The same with the request, as long as it is kept: while it waits, is quarantined, or names nobody."""

    request: dict[str, Any] | None = None


class Discard(Strict):
    """Why a delivery is not wanted."""

    reason: Annotated[str, Field(min_length=1, max_length=300)]


class RetryInput(Strict):
    """Which deliveries to try again; without any, those not mapped yet, the longest untried first, 1,000 a call."""

    delivery_ids: Annotated[list[str], Field(max_length=1_000)] | None = None


class Summary(BaseModel):
    """What became of everything a source ever delivered: `received` is the sum of the others."""

    received: int
    mapped: int
    ignored: int
    duplicate: int
    quarantined: int
    pending: int


class FieldOut(BaseModel):
    """What a line of the mapping found in the body, or why it found nothing."""

    field: str
    place: str
    value: Any = None
    why: str | None = None


class Preview(BaseModel):
    """The facts that a body would tell, and how each line of the mapping fared. Nothing is stored."""

    facts: list[dict[str, Any]]
    fields: list[FieldOut]
    problem: str | None = None
    needs: list[str] = Field(default_factory=list)


class RetriedOut(BaseModel):
    """How many deliveries were tried again, and how many still cannot be mapped or name nobody."""

    tried: int
    still_quarantined: int
