"""What callers send about leads, and what they get."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.capture.consent.domain import ConsentWord
from services.capture.consent.inputs import MOST_ENTRIES, ConsentInput
from services.capture.facts.inputs import LeadIdText, Name, TouchFields
from services.capture.leads.domain import ATTRIBUTE, EXTERNAL, FIELDS
from services.capture.leads.identifying import Named
from services.capture.reading import FreeObject, Strict
from shared.consents import Standing
from shared.emails import Email
from shared.events import ConsentChannel
from shared.ids import LeadId
from shared.phones import Phone
from shared.web import OccurredAt

MOST_ATTRIBUTES = 200
COUNTRY_CODE_LENGTH = 2
WHOLE_LIMIT = 10**15

Whole = Annotated[int, Field(ge=0, le=WHOLE_LIMIT)]
Text = Annotated[str, Field(max_length=500)]


class LeadInput(Strict):
    """What is known about a person. Whoever is known by one of the identifiers is updated, else a lead is made.

    A field that is absent or null says nothing; an attribute of null takes it back.
    """

    email: Email | None = None
    phone: Phone | None = None
    external_id: Name | None = None
    anonymous_id: Name | None = None
    first_name: Text | None = None
    last_name: Text | None = None
    company: Text | None = None
    title: Text | None = None
    country: Annotated[Text | None, Field(description="ISO 3166 code", examples=["DE"])] = None
    region: Text | None = None
    industry: Text | None = None
    employees: Whole | None = None
    annual_revenue: Annotated[Whole | None, Field(description="In whole units of the company's currency")] = None
    use_case: Text | None = None
    attributes: Annotated[FreeObject, Field(max_length=MOST_ATTRIBUTES)] = Field(default_factory=dict)
    consent: Annotated[dict[ConsentChannel, Standing], Field(description="About marketing, by channel")] = Field(
        default_factory=dict
    )
    consents: Annotated[
        list[ConsentInput], Field(max_length=MOST_ENTRIES, description="The same by purpose, with evidence")
    ] = Field(default_factory=list)
    touch: TouchFields | None = None
    occurred_at: OccurredAt | None = None

    @model_validator(mode="after")
    def _is_somebody(self) -> "LeadInput":
        if not (self.email or self.phone or self.external_id or self.anonymous_id):
            raise ValueError("one of email, phone, external_id and anonymous_id is required")
        return self

    def named(self, origin: str) -> Named:
        """The identifiers."""
        return Named(
            email=self.email,
            phone=self.phone,
            external_id=self.external_id,
            anonymous_id=self.anonymous_id,
            origin=origin,
        )

    def told(self, origin: str) -> dict[str, Any]:
        """What the call says about the person, by the names of statements."""
        external_ids = {origin: self.external_id} if self.external_id else {}
        return dict(statements_of(self.__dict__, self.attributes, external_ids))

    def words(self) -> tuple[ConsentWord, ...]:
        """What the call says about consent."""
        short = [ConsentWord(channel, state) for channel, state in sorted(self.consent.items())]
        return (*short, *(said.word() for said in self.consents))


def statements_of(
    fields: Mapping[str, Any], attributes: Mapping[str, Any], external_ids: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """The statements in fields of a lead: blank text says nothing, a country code is in capitals."""
    for name in FIELDS:
        value = fields.get(name)
        if isinstance(value, str):
            value = value.strip() or None
        if name == "country" and value is not None and len(value) == COUNTRY_CODE_LENGTH:
            value = value.upper()
        if value is not None:
            yield name, value
    for name, value in attributes.items():
        yield f"{ATTRIBUTE}{name}", value
    for source, external_id in external_ids.items():
        yield f"{EXTERNAL}{source}", external_id


class MergeInput(Strict):
    """The lead that is the same person; `into` says which of the two stands for both from now on."""

    into: LeadIdText | None = None
    with_lead: Annotated[LeadIdText, Field(alias="with")]


class LeadOut(BaseModel):
    """A person's profile. `lead_ids` are all leads that turned out to be this person, itself included."""

    model_config = ConfigDict(frozen=True)

    lead_id: LeadId
    email: str | None = None
    phone: str | None = None
    external_ids: dict[str, str]
    first_name: str | None = None
    last_name: str | None = None
    company: str | None = None
    title: str | None = None
    country: str | None = None
    region: str | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    use_case: str | None = None
    attributes: dict[str, Any]
    consent: dict[ConsentChannel, Standing]
    lead_ids: list[LeadId]
    revision: int
    captured_at: datetime
    created_at: datetime
    updated_at: datetime
