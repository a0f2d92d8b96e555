"""What is told about connections to CRMs, and how they are shown."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from services.routing.crm.domain import TYPES, CrmName
from services.routing.subscriptions.inputs import Filter, Types
from services.routing.webhooks.domain import EndpointState
from services.routing.webhooks.inputs import Url
from shared.web import Input

Name = Annotated[str, Field(min_length=1, max_length=200)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[dict[Word, Word], Field(max_length=200)]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.]{0,99}$")]
Source = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+){0,3}$", examples=["lead.email"])]
Sources = Annotated[dict[FieldName, Source | Annotated[str, Field(max_length=0)]], Field(max_length=100)]
TOGETHER = ("client_id", "client_secret")


class Credentials(Input):
    """A token that lasts; or client id and secret, with a refresh token where the CRM wants one."""

    token: SecretStr | None = None
    client_id: SecretStr | None = None
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None

    @model_validator(mode="after")
    def _lets_in(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if given not in ({"token"}, {*TOGETHER}, {*TOGETHER, "refresh_token"}):
            raise ValueError("give a token, or client_id and client_secret, with or without a refresh_token")
        return self

    def plain(self) -> dict[str, object]:
        """As it is sealed."""
        told = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: secret.get_secret_value() for name, secret in told.items() if secret is not None}


class WaysInput(Input):
    """How records are written; what is left out is as the CRM comes.

    `lead_fields` and `deal_fields` add to the fields that are written anyway (an empty source leaves one out) and name
    what fills them: `lead.…`, `score.…`, `scores.…`, `stage`, `assignment.queue`, `lead_id`, `deal.…`. `stages` and
    `deal_stages` are the CRM's words for ours: a lead's stage without one is not written, a deal's as it is. `users`
    are the CRM's users by the ids of reps; others are found by their address. `lead_merged_field` is written where the
    CRM cannot merge two leads: into the one that is gone, the CRM's id of the other.
    """

    lead_fields: Sources = Field(default_factory=dict)
    deal_fields: Sources = Field(default_factory=dict)
    lead_id_field: FieldName | None = None
    lead_merged_field: FieldName | None = None
    deal_id_field: FieldName | None = None
    stages: Words = Field(default_factory=dict)
    deal_stages: Words = Field(default_factory=dict)
    users: Words = Field(default_factory=dict)
    pipelines: Words = Field(default_factory=dict)


class ConnectionInput(Input):
    """A CRM that is to be told of assignments, stages and deals. Salesforce's base address is your own domain there."""

    crm: CrmName
    name: Name
    base_url: Url | None = None
    auth_url: Url | None = None
    credentials: Credentials
    types: Types = Field(default_factory=lambda: list(TYPES))
    filter: Filter | None = None
    ways: WaysInput = Field(default_factory=WaysInput)


class ConnectionChange(Input):
    """A change of a connection: what is left out stays, `ways` as a whole."""

    name: Name | None = None
    base_url: Url | None = None
    auth_url: Url | None = None
    credentials: Credentials | None = None
    ways: WaysInput | None = None


class ConnectionOut(BaseModel):
    """A connection and its health. What is delivered is listed, held back and sent again at the endpoint of its id."""

    connection_id: str
    subscription_id: str
    crm: CrmName
    name: str
    base_url: str
    auth_url: str | None
    ways: Mapping[str, Any]
    state: EndpointState
    reason: str | None
    failures: int
    waiting: int
    author: str
    created_at: datetime
    updated_at: datetime


class RecordOut(BaseModel):
    """Which record of the CRM one of ours is, and when it was written last.

    `crm_id` is absent as long as the first write was not answered: then it may stand there, and is looked for again.
    Once the lead was erased here, `erasure` is what the CRM answered to that; `erased_at` is absent until it did it.
    """

    kind: str
    our_id: str
    crm_id: str | None
    written_at: datetime
    erased_at: datetime | None
    erasure: str | None
