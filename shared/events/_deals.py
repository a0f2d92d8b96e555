"""Facts about deals, and customers handed to customer success."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.events._event import Day, Event, Moment
from shared.ids import ConversionId, DealId, LeadId, RepId


class DealPersonal(BaseModel):
    """What is written about a deal with a person; it travels only encrypted, with the key of the person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = ""
    reason: str | None = None
    notes: dict[str, str] = Field(default_factory=dict)
    remarks: dict[str, str] = Field(default_factory=dict)


class DealRecurring(BaseModel):
    """How often a line is paid: every `count` intervals, `periods` times as far as agreed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    interval: Literal["day", "week", "month", "quarter", "year"]
    count: int = 1
    periods: int | None = None


class DealLine(BaseModel):
    """So many of a product, at a price each; `recurring` when it is paid again and again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    product: str
    quantity: int = 1
    unit_minor: int
    recurring: DealRecurring | None = None


class DealStakeholder(BaseModel):
    """A person who has a part in a deal."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lead_id: LeadId
    role: str


class DealChanged(Event):
    """A deal as it stands after a change: a whole snapshot, the highest `revision` wins.

    `status` is `open`, `won` or `lost`; `opened_at` is when it was created, `closed_at` when it was won or lost.
    `recurring_minor` is what it brings every month, part of `value_minor` or not. `teams` are those of the rep,
    `pipeline_stages` the stages of open deals in their order, both as they were at the time of the change. What is
    written about it is encrypted in `personal`, a `DealPersonal`; `name` and `reason` are empty then.

    A change that is told after later ones makes the deal be told anew from its opening on: `begins` is the revision at
    which that began (0: never), and revisions before it count no more. `lines` are whole when there are any.
    """

    ce_type: ClassVar[str] = "throughline.deal.changed.v1"

    deal_id: DealId
    revision: int
    external_id: str | None = None
    name: str
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int
    currency: str
    recurring_minor: int | None = None
    rep_id: RepId | None = None
    opened_at: Moment
    closed_at: Moment | None = None
    reason: str | None = None
    conversion_id: ConversionId | None = None
    teams: tuple[str, ...] = ()
    pipeline_stages: tuple[str, ...] = ()
    personal: str | None = None
    begins: int = 0
    pipeline_id: str | None = None
    pipeline_version: int | None = None
    expected_close_on: Day | None = None
    contract_starts_on: Day | None = None
    contract_ends_on: Day | None = None
    lines: tuple[DealLine, ...] = ()
    stakeholders: tuple[DealStakeholder, ...] = ()
    renewal_of: DealId | None = None
    lost_reason: str | None = None


class DealRotted(Event):
    """Nothing changed about an open deal for as long as its stage allows; told once for each time it falls silent.

    `since` is when it changed last.
    """

    ce_type: ClassVar[str] = "throughline.deal.rotted.v1"

    deal_id: DealId
    revision: int
    pipeline_id: str
    stage: str
    rep_id: RepId | None = None
    since: Moment


class LeadHandedOff(Event):
    """A won deal was handed to customer success; a whole snapshot, the highest `revision` wins.

    `owner_id` is the rep who has the customer now, None while nobody could be found; `gaps` names what the hand-off
    should tell and does not, `due_at` is when the last of its tasks is due. `withdrawn` when the deal was reopened.
    `first_won_at` is the time of the win as it was told first, where that was put right since.
    """

    ce_type: ClassVar[str] = "throughline.lead.handed_off.v1"

    deal_id: DealId
    revision: int
    owner_id: RepId | None = None
    queue: str | None = None
    gaps: tuple[str, ...] = ()
    won_at: Moment
    due_at: Moment | None = None
    withdrawn: bool = False
    first_won_at: Moment | None = None


class HandoffTaskChanged(Event):
    """A task of a hand-off is done, or (no `completed_at`) to be done after all; the highest `revision` of it wins."""

    ce_type: ClassVar[str] = "throughline.handoff.task_changed.v1"

    deal_id: DealId
    task_id: str
    revision: int
    completed_at: Moment | None = None
