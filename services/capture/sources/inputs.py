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
    secrets: list[SecretOut]
    created_at: datetime
    updated_at: datetime


class NewSource(SourceOut):
    """A source just made, with its secret: shown this once."""

    secret: str


class NewSecret(SecretOut):
    """A secret just added: shown this once."""

    secret: str


DeliveryState = Literal["mapped", "ignored", "quarantined"]


class DeliveryOut(BaseModel):
    """What became of a delivery; `reason` says why it was ignored or could not be mapped."""

    delivery_id: str
    state: DeliveryState
    facts: int
    lead_id: str | None = None
    reason: str | None = None
    received_at: datetime
    handled_at: datetime


class RetriedOut(BaseModel):
    """How many quarantined deliveries were tried again, and how many still cannot be mapped."""

    tried: int
    still_quarantined: int
