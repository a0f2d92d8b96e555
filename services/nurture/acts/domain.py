"""What a step that acts on something else says, and under which name it is done once. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

from services.nurture.people.domain import Person
from services.nurture.sequences.moments import field_of
from services.nurture.sequences.steps import (
    ActStep,
    AssignStep,
    EnrolStep,
    NotifyStep,
    RemoveStep,
    UpdateStep,
    WebhookStep,
)
from shared.ids import EventId, LeadId, SequenceId, derived_id
from shared.rules import present

Kind = Literal["update", "notify", "webhook", "enrol", "remove", "assign"]


def kind_of(step: ActStep) -> Kind:
    """What it is called in documents."""
    match step:
        case UpdateStep():
            return "update"
        case NotifyStep():
            return "notify"
        case WebhookStep():
            return "webhook"
        case EnrolStep():
            return "enrol"
        case RemoveStep():
            return "remove"
        case AssignStep():
            return "assign"


def act_id(lead_id: LeadId, sequence_id: SequenceId, run: int, step_id: str, visit: int) -> EventId:
    """The same id whenever and wherever this visit of this step is decided; the fact that tells it has it as well."""
    return EventId(derived_id("act", lead_id, sequence_id, str(run), step_id, str(visit)))


def shown_fields(step: WebhookStep, person: Person) -> dict[str, Any]:
    """What another system learns of the person, by the names that the document uses."""
    return present(**{name: field_of(person.fields, name) for name in step.fields})


def notice_context(person: Person, name: str, sender: str, site_url: str) -> Mapping[str, Any]:
    """What the text for a rep may read: what that of a message may, but for a way to unsubscribe."""
    values = person.values().get("lead", {})
    return {
        "lead": {field: value for field, value in values.items() if field != "consent"},
        "sequence": {"name": name},
        "sender": {"name": sender},
        "site_url": site_url,
    }
