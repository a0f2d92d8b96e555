"""What a sequence asks other services to do for a lead, each once: its event id names sequence run, step and visit."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from shared.events._event import Event
from shared.ids import SequenceId


class _OfAStep(BaseModel):
    """What the requests of steps have in common: which step of which run asks."""

    enrolment_id: str
    sequence_id: SequenceId
    sequence_version: int
    run: int
    step_id: str
    visit: int


class LeadUpdateRequested(Event, _OfAStep):
    """Fields of a lead are to be set, as by a call of the source `nurture`; they stand in `personal`."""

    ce_type: ClassVar[str] = "throughline.lead.update_requested.v1"

    personal: str | None = None


class RepNoticeRequested(Event, _OfAStep):
    """A rep is to be told something about a lead; to whom and what stands in `personal`."""

    ce_type: ClassVar[str] = "throughline.rep.notice_requested.v1"

    personal: str | None = None


class WebhookRequested(Event, _OfAStep):
    """A webhook endpoint is to be told that a run came to a step; what it learns of the lead stands in `personal`."""

    ce_type: ClassVar[str] = "throughline.webhook.requested.v1"

    endpoint_id: str
    personal: str | None = None


class AssignmentRequested(Event, _OfAStep):
    """A rep is wanted for a lead, unless it has one."""

    ce_type: ClassVar[str] = "throughline.assignment.requested.v1"

    reason: str | None = None


StepRequest = LeadUpdateRequested | RepNoticeRequested | WebhookRequested | AssignmentRequested


class UpdatePersonal(BaseModel):
    """Fields by their names, attributes below `attributes.`; null takes an attribute back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fields: dict[str, Any]


class NoticePersonal(BaseModel):
    """`to` is `owner`, or a rep by id or address."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    to: str
    subject: str
    text: str


class WebhookPersonal(BaseModel):
    """The fields of the lead that the sequence names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lead: dict[str, Any]
