"""Facts about people: who they are, what they allow, who turned out to be whom."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.events._event import Event, Moment
from shared.ids import AccountId, LeadId

ConsentChannel = Literal["email", "sms", "whatsapp"]
ConsentState = Literal["granted", "denied"]
IdentifierKind = Literal["email", "phone", "external", "anonymous"]


class LeadPersonal(BaseModel):
    """The part of a profile that travels only encrypted, with the key of the person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    email: str | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    title: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)
    external_ids: dict[str, str] = Field(default_factory=dict)
    account_reason: str | None = None


class LeadCaptured(Event):
    """A person's profile as it stands after a call or delivery that told something about it: a whole snapshot.

    The highest `revision` wins, so that folding needs no order. `captured_at` is when a call or delivery first told
    who the person is (`occurred_at` of that fact). `made_from` says which identifier the lead's id was made from,
    `account_id` which company the person belongs to, and `account_matched_by` what said so: somebody's `hand`, the
    `domain` of the email address, the company's `name`, or a `close_name` with a second sign. `personal` opens to
    `LeadPersonal`.
    """

    ce_type: ClassVar[str] = "throughline.lead.captured.v1"

    revision: int
    captured_at: Moment
    origin: str = "api"
    company: str | None = None
    country: str | None = None
    region: str | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    use_case: str | None = None
    free_mail: bool | None = None
    made_from: IdentifierKind | None = None
    account_id: AccountId | None = None
    account_matched_by: Literal["hand", "domain", "name", "close_name"] | None = None
    personal: str | None = None


class IdentityLinked(Event):
    """`anonymous_lead_id`, the id made from a browser's anonymous id, belongs to `lead_id` from `occurred_at` on."""

    ce_type: ClassVar[str] = "throughline.identity.linked.v1"
    waits_behind_parked: ClassVar[bool] = False

    anonymous_lead_id: LeadId


class LeadMerged(Event):
    """`from_lead_id` turned out to be `lead_id`, who survives. Facts keep the id they came with.

    With `identifier`, `from_lead_id` never was a lead: it is the id that touches get which only know this kind of
    identifier of the person.
    """

    ce_type: ClassVar[str] = "throughline.lead.merged.v1"
    waits_behind_parked: ClassVar[bool] = False

    from_lead_id: LeadId
    identifier: IdentifierKind | None = None


class LeadUnmerged(Event):
    """The merge of `from_lead_id` into `lead_id` is undone."""

    ce_type: ClassVar[str] = "throughline.lead.unmerged.v1"
    waits_behind_parked: ClassVar[bool] = False

    from_lead_id: LeadId


class ConsentEvidence(BaseModel):
    """How somebody's word about consent can be proven; it travels only encrypted, with the key of the person.

    `text` is what they read, `text_version` its version, `reference` names the record where it came from.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str
    text: str | None = None
    text_version: str | None = None
    form_id: str | None = None
    url: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    reference: str | None = None
    note: str | None = None


class ConsentChanged(Event):
    """What a person allows on one channel for one purpose; the latest `occurred_at` wins, of two at once the refusal.

    `purpose` is snake_case; `all`, which is only ever denied, means every purpose. `personal` opens to
    `ConsentEvidence`.
    """

    ce_type: ClassVar[str] = "throughline.consent.changed.v1"
    waits_behind_parked: ClassVar[bool] = False

    channel: ConsentChannel
    state: ConsentState
    origin: str = "api"
    reason: str | None = None
    purpose: str = "marketing"
    personal: str | None = None


class ConsentRequested(Event):
    """A person was asked to allow one purpose on one channel, and has not confirmed: until then it is not granted.

    It takes back nothing that was granted. `personal` opens to `ConsentEvidence`.
    """

    ce_type: ClassVar[str] = "throughline.consent.requested.v1"
    waits_behind_parked: ClassVar[bool] = False

    channel: ConsentChannel
    purpose: str = "marketing"
    origin: str = "api"
    reason: str | None = None
    personal: str | None = None


class OptinPersonal(BaseModel):
    """The part of a request to confirm that travels only encrypted: where it goes, and the link that confirms."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    email: str
    confirm_url: str


class OptinRequested(Event):
    """A form asked for consent that counts once a link is followed: one message has to bring it, until `expires_at`.

    `personal` opens to `OptinPersonal`.
    """

    ce_type: ClassVar[str] = "throughline.optin.requested.v1"

    optin_id: str
    form_id: str
    form_name: str
    language: str
    expires_at: Moment
    personal: str | None = None


class LeadErased(Event):
    """The person's key is destroyed; every service strips identity and keeps counts and credit.

    Told for every id of the person. `receipt_id` names the erasure, `person_id` the lead that stood for the person.
    """

    ce_type: ClassVar[str] = "throughline.lead.erased.v1"
    waits_behind_parked: ClassVar[bool] = False

    receipt_id: str | None = None
    person_id: LeadId | None = None


class PersonKeyCreated(Event):
    """The key of a person's personal data, itself encrypted with the installation's key."""

    ce_type: ClassVar[str] = "throughline.key.created.v1"
    waits_behind_parked: ClassVar[bool] = False

    wrapped_key: str


class AccountPersonal(BaseModel):
    """The part of an account that travels only encrypted, with a key of its own: a company can be one person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = ""
    domains: list[str] = Field(default_factory=list)
    external_id: str | None = None
    owner_id: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)


class AccountChanged(Event):
    """A company as it stands after a change: a whole snapshot, the highest `revision` wins.

    `lead_id` holds the account's id, whose key seals `personal`, which opens to `AccountPersonal`. With `merged_into`
    the account is another one from now on, and its leads are that one's.
    """

    ce_type: ClassVar[str] = "throughline.account.changed.v1"

    revision: int
    account_id: AccountId
    parent_id: AccountId | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    country: str | None = None
    merged_into: AccountId | None = None
    personal: str | None = None
