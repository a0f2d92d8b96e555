"""What is told about endpoints, and how they and their deliveries are shown."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from services.routing.webhooks.domain import EndpointKind, EndpointState
from shared.web import Input
from shared.webhooks import DeliveryState, key_of


def _is_secret(text: str) -> str:
    key_of(text)
    return text


Secret = Annotated[
    str, Field(max_length=200, examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]), AfterValidator(_is_secret)
]
Url = Annotated[str, Field(min_length=1, max_length=2_000, examples=["https://example.com/hooks/throughline"])]
Description = Annotated[str, Field(max_length=200)]


class EndpointInput(Input):
    """An address that is to be told things. The secret is made when it is not given."""

    url: Url
    description: Description = ""
    secret: Secret | None = None


class EndpointChange(Input):
    """A change of an endpoint: what is left out stays."""

    url: Url | None = None
    description: Description | None = None


class SecretInput(Input):
    """Another secret; made when it is not given."""

    secret: Secret | None = None


class SuspendInput(Input):
    """Why nothing is to be sent for now."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class SecretOut(BaseModel):
    """A live secret, without itself."""

    n: int
    created_at: datetime


class NewSecretOut(SecretOut):
    """A new secret, shown this once."""

    secret: str


class EndpointOut(BaseModel):
    """An endpoint and its health: `failures` counts those in a row, `waiting` the deliveries that are kept for it.

    `suspended` (100 failures in a row, or by hand) and `ended` (it answered 410) get nothing until they are resumed;
    what is for them is kept for seven days. `reason` says why; of an active one, why nothing arrives just now. One of
    kind `crm` is that of a connection with a CRM.
    """

    endpoint_id: str
    kind: EndpointKind
    url: str
    description: str
    state: EndpointState
    reason: str | None
    failures: int
    waiting: int
    secrets: list[SecretOut]
    changed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class NewEndpointOut(EndpointOut):
    """A new endpoint with its secret, shown this once."""

    secret: str


class TryOut(BaseModel):
    """One try: what was answered, or why nothing was."""

    n: int
    at: datetime
    status: int | None
    said: str
    took_ms: int


class DeliveryOut(BaseModel):
    """Something for an endpoint: `due_at` is the next try of one that waits, `said` what the last one came to."""

    delivery_id: str
    endpoint_id: str
    kind: str
    ordering_key: str | None
    state: DeliveryState
    attempts: int
    due_at: datetime
    status: int | None
    said: str | None
    created_at: datetime
    settled_at: datetime | None


class ShownDelivery(DeliveryOut):
    """A delivery with its body and each try. `body` is null when the person it was about is erased."""

    body: Any
    tries: list[TryOut]
