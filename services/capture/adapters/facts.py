"""What webhook deliveries tell, once the source's own shape is left behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from shared.events import ConsentChannel, ConsentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who a fact is about, as far as the source tells. `external_id` is the person's own id at the source."""

    email: str | None = None
    phone: str | None = None
    external_id: str | None = None
    anonymous_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    title: str | None = None
    company: str | None = None
    country: str | None = None
    region: str | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    use_case: str | None = None
    consent: Mapping[ConsentChannel, ConsentState] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identified(self) -> bool:
        """Without any identifier there is no lead."""
        return bool(self.email or self.phone or self.external_id or self.anonymous_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """The interaction that a fact tells of. `touch_id` is its natural id at the source, the same for every delivery.

    `utm` has `source medium campaign term content`; `click_ids` has the values by name (`gclid`, …). `channel` is
    only there when the source, or its owner, knows better than the grouping by `utm` and referrer. `campaign` is the
    source's own name of it, for when `utm` has none, and `platform` where an ad was shown. `automated` says that the
    source knows a machine did it.
    """

    type: str
    touch_id: str
    channel: str | None = None
    campaign: str | None = None
    platform: str | None = None
    utm: Mapping[str, str] = field(default_factory=dict)
    click_ids: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    referrer: str | None = None
    automated: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What every fact has. `timed_by` says whose clock `occurred_at` is: the source's, or ours at receipt.

    `event` is the source's or the adapter's name for what happened.
    """

    idempotency_key: str
    occurred_at: datetime
    timed_by: Literal["source", "receipt"] = "source"
    event: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadFact(_Told):
    """A person told something about themselves, or the source did. `external_id` names the submission or record.

    It identifies nobody: the person's own id, where there is one, is `person.external_id`.
    """

    person: Person
    touch: Touch | None = None
    external_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchFact(_Told):
    """An interaction, and perhaps nothing new about the person."""

    person: Person
    touch: Touch
    external_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionFact(_Told):
    """Money came in. `external_id` names the purchase, the same in every event about it.

    `same_as` are other names that events about the same money may use (the invoice of a payment intent). `touch` is
    the visit that led to it, where the source knows it.
    """

    person: Person
    external_id: str
    amount_minor: int
    currency: str
    type: str = "purchase"
    same_as: tuple[str, ...] = ()
    touch: Touch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFact(_Told):
    """Money went back. `external_id` names the purchase, `refund_id` the refund; both are the source's."""

    external_id: str
    refund_id: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingFact(_Told):
    """A meeting was `booked`, `rescheduled`, `canceled` or `held`, as `event` says. `external_id` names the meeting."""

    person: Person
    external_id: str
    starts_at: datetime | None = None
    host_email: str | None = None
    touch: Touch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFact(_Told):
    """What became of a message, as `event` says.

    Of an email: `delivered opened clicked bounced blocked deferred dropped complained unsubscribed resubscribed
    unknown`; of an SMS or WhatsApp: the provider's own states, `replied`, `clicked`, `unsubscribed`, `resubscribed`.
    `permanent` says whether trying again is of no use, `url` which link was clicked.
    """

    person: Person
    channel: Literal["email", "sms", "whatsapp"]
    message_id: str | None = None
    permanent: bool | None = None
    error_code: str | None = None
    url: str | None = None
    utm: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmFact(_Told):
    """A record of a CRM changed: `stage` is the CRM's own name of the stage it is in now. `external_id` names it.

    Of a `deal`, `account` is the CRM's own id of the company it is with, and `company` its name; `only_tied` says that
    nothing but whose it is changed.
    """

    person: Person
    external_id: str
    stage: str | None = None
    deal: bool = False
    only_tied: bool = False
    account: str | None = None
    company: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFact(_Told):
    """Somebody pressed a button that we showed: `event` is its name, `value` what it stands for."""

    person: Person
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureFact(_Told):
    """The source passes on a person's wish to be forgotten."""

    person: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored(_Told):
    """A genuine delivery that means nothing here, on purpose. `reason` is a stable word, fit for a metric's label."""

    reason: str


Fact = (
    LeadFact
    | TouchFact
    | BookingFact
    | MessageFact
    | CrmFact
    | ActionFact
    | ConversionFact
    | RefundFact
    | ErasureFact
    | Ignored
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an adapter made of a body, and what the mapping of the source's owner may look into.

    `answers` are the answers by the stable name of their question, `body` the whole.
    """

    facts: tuple[Fact, ...]
    answers: Mapping[str, Any]
    body: Any
