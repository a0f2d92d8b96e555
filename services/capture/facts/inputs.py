"""What callers send about touches and money."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from services.capture.reading import FreeObject, Strict
from shared.emails import Email
from shared.money import Currency
from shared.web import CalendarDay, Instant, OccurredAt

MOST_MINOR = 10**15
MOST_IN_A_BATCH = 1_000
FUTURE = timedelta(days=1)

Name = Annotated[str, Field(min_length=1, max_length=255)]
TypeName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="snake_case", examples=["page_view", "demo_requested"])
]
IdText = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$")]
LeadIdText = Annotated[IdText, Field(description="A lead id; of a touch it may be one that is not known here yet")]
Minor = Annotated[int, Field(ge=0, le=MOST_MINOR, description="Whole minor units of the currency")]
Address = Annotated[str, Field(max_length=8_192)]


class TouchFields(Strict):
    """An interaction. `source`, `medium`, `campaign`, `content` and click ids are read from the url when not given."""

    touch_id: Annotated[Name | None, Field(description="Names the touch, so that sending it again changes nothing")] = (
        None
    )
    type: TypeName
    channel: Name | None = None
    source: Name | None = None
    medium: Name | None = None
    campaign: Name | None = None
    content: Name | None = None
    url: Address | None = None
    referrer: Address | None = None
    occurred_at: Instant | None = None
    properties: FreeObject = Field(default_factory=dict)
    automated: Annotated[bool, Field(description="A machine made it: it earns neither points nor credit")] = False
    automated_reason: Annotated[Name | None, Field(description="How that is known; nothing personal")] = None
    internal: Annotated[bool, Field(description="Own people made it: it earns neither points nor credit")] = False


class TouchInput(TouchFields):
    """A touch, and whose it is: a lead id, an email address or a browser's anonymous id."""

    lead_id: LeadIdText | None = None
    email: Annotated[str | None, Field(max_length=320)] = None
    anonymous_id: Name | None = None


class WithdrawalInput(Strict):
    """Why a touch of `source` (default: this API) counts no more. Kept in clear: nothing personal."""

    source: Name | None = None
    reason: Annotated[str, Field(min_length=1, max_length=255, pattern=r"\S")]


class TouchBatch(Strict):
    """Up to 1,000 touches at once."""

    touches: Annotated[list[TouchInput], Field(min_length=1, max_length=MOST_IN_A_BATCH)]


class ConversionInput(Strict):
    """Money, or a success that counts as such. The same `external_id` again corrects it."""

    lead_id: LeadIdText | None = None
    email: Email | None = None
    anonymous_id: Name | None = None
    external_id: Name
    type: TypeName
    value_minor: Minor
    currency: Currency
    occurred_at: OccurredAt | None = None


class RefundInput(Strict):
    """Money given back for the conversion that `source` (default: this API) calls `external_id`."""

    external_id: Name
    source: Name | None = None
    refund_id: Name
    amount_minor: Minor
    currency: Currency
    occurred_at: OccurredAt | None = None


class CostInput(Strict):
    """What a channel or campaign cost on a day. The same day, channel, campaign and currency again replaces it."""

    date: CalendarDay
    channel: Name
    campaign: Name | None = None
    amount_minor: Minor
    currency: Currency


class CostBatch(Strict):
    """Up to 1,000 costs at once."""

    costs: Annotated[list[CostInput], Field(min_length=1, max_length=MOST_IN_A_BATCH)]


def latest_allowed(now: datetime) -> datetime:
    """What occurred after this has not happened yet."""
    return now.astimezone(UTC) + FUTURE
