"""Facts about interactions, the work queue of deliveries, and money."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from shared.events._event import Day, Event
from shared.ids import ConversionId, DealId, LeadId, SourceId, TouchId

INTERNAL = "internal"
"""The `automated_reason` of what own people did: like a machine's, it counts for nothing."""
CALM_TOUCHES = frozenset({"page_view", "session_started", "email_opened"})
"""Touches that come in great numbers, and that nobody answers."""


class TouchPersonal(BaseModel):
    """The part of a touch that travels only encrypted, with the key of the person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str | None = None
    referrer: str | None = None
    anonymous_id: str | None = None
    properties: dict[str, Any] = Field(default_factory=dict)


class TouchRecorded(Event):
    """A marketing or sales interaction. `lead_id` is the id the touch came with, perhaps an anonymous one's.

    `origin` and `touch_id` name the touch; the same pair with other content is a correction, and the highest
    `position` wins. `page` and `referrer_host` are free of queries; `click_ids` names the click ids that were there
    (`gclid`, …), not their values. `automated` says that no customer made it, but a machine or, by the
    `automated_reason` `internal`, own people; otherwise that reason says how it is known.
    `personal` opens to `TouchPersonal`.
    """

    ce_type: ClassVar[str] = "throughline.touch.recorded.v1"

    origin: str = "api"
    touch_id: TouchId
    type: str
    channel: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    page: str | None = None
    referrer_host: str | None = None
    click_ids: tuple[str, ...] = ()
    automated: bool = False
    personal: str | None = None
    automated_reason: str | None = None

    @property
    def is_calm(self) -> bool:
        """Whether nobody waits for this one: by its type."""
        return self.type in CALM_TOUCHES


class TouchWithdrawn(Event):
    """A touch turned out not to be a person's: it counts as automated from now on, however it was told or will be.

    `origin` and `touch_id` name the touch, which may not be known yet; nobody says whose it is, so `lead_id` is empty.
    """

    ce_type: ClassVar[str] = "throughline.touch.withdrawn.v1"
    waits_behind_parked: ClassVar[bool] = False

    lead_id: LeadId = LeadId("")
    origin: str = "api"
    touch_id: TouchId
    reason: str

    @property
    def key(self) -> str:
        """The touch's name."""
        return f"{self.origin}:{self.touch_id}"

    @property
    def subject(self) -> str:
        """The touch."""
        return self.touch_id


class VisitorIdentified(Event):
    """A page said who its visitor is, without proof. `lead_id` is the id made from the browser's anonymous id.

    `origin` is the site. `personal` opens to what the page said, as it said it.
    """

    ce_type: ClassVar[str] = "throughline.visitor.identified.v1"
    waits_behind_parked: ClassVar[bool] = False

    origin: str
    personal: str | None = None


class DeliveryReceived(Event):
    """A verified webhook delivery, stored before anything is made of it. `sealed` opens to the request.

    `lead_id` is empty, since nobody has looked yet whom it is about.
    """

    ce_type: ClassVar[str] = "throughline.delivery.received.v1"

    lead_id: LeadId = LeadId("")
    source_id: SourceId
    kind: str
    delivery_id: str
    sealed: str

    @property
    def key(self) -> str:
        """The delivery's id: all that is known before somebody looks inside."""
        return self.delivery_id

    @property
    def subject(self) -> str:
        """The source."""
        return self.source_id


class ConversionRecorded(Event):
    """Money, or a success that counts as such. `origin` and `external_id` name it; the highest `position` wins.

    `withdrawn` takes it back: it did not happen, and its value is 0; told again without it, it did.
    """

    ce_type: ClassVar[str] = "throughline.conversion.recorded.v1"

    origin: str = "api"
    conversion_id: ConversionId
    external_id: str
    type: str
    value_minor: int
    currency: str
    deal_id: DealId | None = None
    withdrawn: bool = False


class RefundRecorded(Event):
    """Money given back for a conversion. It may arrive before the conversion; the key is the conversion's id.

    `origin`, `external_id` and `refund_id` name it; the highest `position` wins.
    """

    ce_type: ClassVar[str] = "throughline.refund.recorded.v1"

    lead_id: LeadId = LeadId("")
    origin: str = "api"
    conversion_id: ConversionId
    external_id: str
    refund_id: str
    amount_minor: int
    currency: str

    @property
    def key(self) -> str:
        """The conversion's id: the lead may not be known here."""
        return self.conversion_id


class CostRecorded(Event):
    """What a channel or campaign cost on a day: an upsert by date, channel, campaign, currency and origin."""

    ce_type: ClassVar[str] = "throughline.cost.recorded.v1"

    lead_id: LeadId = LeadId("")
    origin: str = "api"
    date: Day
    channel: str
    campaign: str | None = None
    amount_minor: int
    currency: str

    @property
    def key(self) -> str:
        """The day and the channel: a cost is about no lead."""
        return f"{self.date}:{self.channel}"
