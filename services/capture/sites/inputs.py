"""What is said about a site, and what its pages send."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from services.capture.facts.inputs import Address, Name, TypeName
from services.capture.reading import FreeObject, Strict
from services.capture.sites.domain import is_origin

MOST_EVENTS = 100
LARGEST_MS = 2**53


def _origin(text: str) -> str:
    origin = text.strip().rstrip("/").lower()
    if not is_origin(origin):
        raise ValueError("not an origin, such as https://www.acme.com or https://*.acme.com")
    return origin


Origin = Annotated[str, Field(max_length=255), AfterValidator(_origin)]
Consent = Literal["required", "implied"]
Title = Annotated[str, Field(min_length=1, max_length=255)]
Moment = Annotated[int, Field(ge=0, le=LARGEST_MS)]


class SiteInput(Strict):
    """A site: the origins its pages are at, and whether a visitor is asked first."""

    name: Title
    origins: Annotated[list[Origin], Field(min_length=1, max_length=50)]
    consent: Annotated[Consent, Field(description="`required`: nothing is stored or sent before `consent granted`")] = (
        "required"
    )


class SitePatch(Strict):
    """What is to be another way about a site."""

    name: Title | None = None
    origins: Annotated[list[Origin], Field(min_length=1, max_length=50)] | None = None
    consent: Consent | None = None


class SiteOut(BaseModel):
    """A site, with what to put into the head of its pages. The id is public: it stands in every page."""

    site_id: str
    name: str
    origins: list[str]
    consent: Consent
    snippet: str
    created_at: datetime
    updated_at: datetime


class Session(Strict):
    """The session of an event: its number, and where its first page was and came from."""

    number: Annotated[int, Field(ge=1, le=10**6)] | None = None
    url: Address | None = None
    referrer: Address | None = None


class SiteEvent(Strict):
    """One thing that happened on a page. `id` names it, so that sending it again changes nothing."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    anonymous_id: Annotated[str, Field(min_length=8, max_length=100)]
    type: TypeName
    at: Moment | None = None
    url: Address | None = None
    referrer: Address | None = None
    title: Annotated[str, Field(max_length=1_000)] | None = None
    properties: FreeObject = Field(default_factory=dict)
    session: Session = Field(default_factory=Session)


class SiteBatch(Strict):
    """What a page sends at once. `sent_at` is its clock at that moment, so that a wrong one does no harm."""

    events: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_EVENTS)]
    sent_at: Moment | None = None


Plain = Annotated[str, Field(max_length=500)]


class Traits(Strict):
    """Who a page says that its visitor is. Of the identifiers the first of email, user id and phone counts."""

    email: Annotated[str, Field(max_length=320)] | None = None
    phone: Annotated[str, Field(max_length=40)] | None = None
    user_id: Name | None = None
    first_name: Plain | None = None
    last_name: Plain | None = None
    company: Plain | None = None
    title: Plain | None = None
    country: Plain | None = None
    region: Plain | None = None
    industry: Plain | None = None
    use_case: Plain | None = None
    attributes: FreeObject = Field(default_factory=dict)
