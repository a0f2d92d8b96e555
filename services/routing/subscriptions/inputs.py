"""What is told about subscriptions, and how they are shown."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, model_validator

from services.routing.subscriptions.domain import TYPES
from services.routing.webhooks.inputs import Secret, Url
from shared.web import Input, Instant

MOST = 100


def _known(types: list[str]) -> list[str]:
    if unknown := [name for name in types if name not in TYPES]:
        raise ValueError(f"there is no {unknown[0][:100]}; there are {', '.join(TYPES)}")
    return sorted(set(types))


Types = Annotated[
    list[str],
    Field(min_length=1, max_length=len(TYPES), examples=[["throughline.lead.assigned.v1"]]),
    AfterValidator(_known),
]
Filter = Annotated[str, Field(min_length=1, max_length=4_000, examples=["event.total >= 80.0"])]
Name = Annotated[str, Field(max_length=200)]


class SubscriptionInput(Input):
    """Facts of these types, for which `filter` (CEL over `event`) holds, go to an endpoint: one that there is, or a
    new one at `url`.

    With `personal` what is known of the person goes along, readable. From `from` on; left out, from now on.
    """

    endpoint_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    url: Url | None = None
    secret: Secret | None = None
    name: Name = ""
    types: Types
    filter: Filter | None = None
    personal: bool = False
    since: Instant | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def _says_where(self) -> "SubscriptionInput":
        if (self.endpoint_id is None) == (self.url is None):
            raise ValueError("send either endpoint_id or url")
        if self.secret is not None and self.url is None:
            raise ValueError("a secret is for a new endpoint; POST /routing/v1/webhooks/{endpoint_id}/secrets adds one")
        return self


class SubscriptionChange(Input):
    """A change: what is left out stays. It counts for what was not handed over yet."""

    name: Name | None = None
    types: Types | None = None
    filter: Filter | None = None
    personal: bool | None = None
    paused: bool | None = None


class ReplayInput(Input):
    """Tell everything received from this time on. `again`: also what was told before, under other ids.

    Without it what was settled in the last seven days is left out; what was told earlier is told under its id.
    """

    since: Instant = Field(alias="from")
    again: bool = True


class SubscriptionOut(BaseModel):
    """A subscription. `since`: facts received earlier are not told. `run` counts how often it was told again."""

    subscription_id: str
    endpoint_id: str
    name: str
    types: list[str]
    filter: str | None
    personal: bool
    paused: bool
    since: datetime
    run: int
    author: str
    created_at: datetime
    updated_at: datetime


class NewSubscriptionOut(SubscriptionOut):
    """A new subscription; with the secret of its endpoint where that is new, shown this once."""

    secret: str | None = None


class TypeOut(BaseModel):
    """A kind of fact that can be subscribed to."""

    type: str
