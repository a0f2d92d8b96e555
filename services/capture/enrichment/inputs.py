"""What callers send about enrichment, and what they get; a credential never leaves."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from services.capture.facts.inputs import LeadIdText
from services.capture.leads.inputs import MOST_ATTRIBUTES, Text, Whole
from services.capture.reading import FreeObject, Strict
from shared.emails import Email
from shared.ids import LeadId
from shared.phones import Phone

NEWEST = 2**31 - 1


class UsageOut(BaseModel):
    """What was asked of a provider: calls, those with data (`hits`), with nothing known, without an answer."""

    calls: int = 0
    hits: int = 0
    misses: int = 0
    failures: int = 0
    cache_hits: int = 0
    spent_minor: int = 0


class BreakerOut(BaseModel):
    """Whether the provider is called: `closed` as ever, `open` not before `until`, `half_open` by one call."""

    state: str
    failures: int
    until: datetime | None = None


class ProviderOut(BaseModel):
    """A provider at the version that counts, with its account of today and of this month (UTC)."""

    provider_id: str
    version: int
    author: str
    created_at: datetime
    document: dict[str, Any]
    has_credential: bool
    breaker: BreakerOut
    today: UsageOut
    this_month: UsageOut


class VersionOut(BaseModel):
    """One version of a provider's document."""

    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]


class ActivateInput(Strict):
    """Which version counts from now on."""

    version: Annotated[int, Field(ge=1, le=NEWEST)]


class CredentialInput(Strict):
    """What proves us to the provider; null removes it."""

    credential: Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[\x20-\x7e]+$")] | None


class TriedLead(Strict):
    """A lead that need not exist."""

    email: Email | None = None
    phone: Phone | None = None
    first_name: Text | None = None
    last_name: Text | None = None
    company: Text | None = None
    title: Text | None = None
    country: Text | None = None
    region: Text | None = None
    industry: Text | None = None
    employees: Whole | None = None
    annual_revenue: Whole | None = None
    use_case: Text | None = None
    attributes: Annotated[FreeObject, Field(max_length=MOST_ATTRIBUTES)] = Field(default_factory=dict)


class TryInput(Strict):
    """Whom to try a provider with: a lead that exists, or what one could look like."""

    lead_id: LeadIdText | None = None
    lead: TriedLead | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "TryInput":
        if (self.lead_id is None) == (self.lead is None):
            raise ValueError("either lead_id or lead is required")
        return self


class RequestOut(BaseModel):
    """The request, its credential blanked."""

    method: str
    url: str
    headers: dict[str, str]
    body: Any = None


class TriedOut(BaseModel):
    """What came of a try: nothing of it is kept, but the call counts.

    `asked` is false with the reason in `detail` where no call was made. `values` is what the map found, `wins` what of
    it would count, `problems` why a field has nothing.
    """

    asked: bool
    detail: str | None = None
    wanted: list[str] = Field(default_factory=list)
    request: RequestOut | None = None
    status: int | None = None
    response: Any = None
    values: dict[str, Any] = Field(default_factory=dict)
    confidence: float | None = None
    problems: dict[str, str] = Field(default_factory=dict)
    wins: dict[str, Any] = Field(default_factory=dict)


class ClaimOut(BaseModel):
    """What somebody told, a provider found, or follows from the rest; `counts` says that it stands in the profile."""

    value: Any
    origin: str
    confidence: float | None = None
    at: datetime
    expires_at: datetime | None = None
    counts: bool


class FieldOut(BaseModel):
    """A field: the value that counts, who said so, and everything else that is said about it."""

    value: Any = None
    origin: str | None = None
    confidence: float | None = None
    at: datetime | None = None
    expires_at: datetime | None = None
    claims: list[ClaimOut]


class RunOut(BaseModel):
    """How it went with a provider last: found, nothing, skipped, waiting or failed, and why."""

    provider_id: str
    outcome: str
    detail: str | None = None
    fields: list[str]
    version: int
    tries: int
    asked_at: datetime
    expires_at: datetime | None = None
    retry_at: datetime | None = None


class EnrichmentOut(BaseModel):
    """What is known of a lead by whom, and how it went with each provider; `due_at` is when the next is asked."""

    lead_id: LeadId
    fields: dict[str, FieldOut]
    runs: list[RunOut]
    due_at: datetime | None = None
