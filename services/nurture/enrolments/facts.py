"""Other services' facts in the shape in which expressions see them, and those of our own about runs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.nurture.enrolments.domain import ACCEPTANCE, CONVERSION, HANDED_OFF, WITHDRAWN, Fact, Run
from shared.db import Connection
from shared.events import (
    AssignmentAccepted,
    ConversionRecorded,
    EnrolmentEnded,
    EnrolmentStarted,
    Event,
    LeadHandedOff,
    SegmentEntered,
    SegmentLeft,
    StageChanged,
    TouchPersonal,
    TouchRecorded,
)
from shared.ids import EventId
from shared.personal import PersonKeys
from shared.rules import present


def touch_fact(event: TouchRecorded) -> Fact:
    """A touch; what is personal in it stays sealed until somebody asks."""
    fields = present(
        type=event.type,
        origin=event.origin,
        channel=event.channel,
        source=event.source,
        medium=event.medium,
        campaign=event.campaign,
        content=event.content,
        page=event.page,
        referrer_host=event.referrer_host,
    )
    return Fact(event.event_id, event.lead_id, event.occurred_at, event.received_at, fields, event.personal)


def stage_fact(event: StageChanged) -> Fact:
    """A stage entered."""
    return _fact(event, type="stage_changed", stage=event.stage, previous=event.previous)


def segment_fact(event: SegmentEntered | SegmentLeft) -> Fact:
    """A segment entered or left."""
    kind = "segment_entered" if isinstance(event, SegmentEntered) else "segment_left"
    return _fact(event, type=kind, segment=event.segment_id, initial=event.initial)


def conversion_fact(event: ConversionRecorded) -> Fact:
    """A success."""
    return _fact(
        event,
        type=WITHDRAWN if event.withdrawn else CONVERSION,
        origin=event.origin,
        conversion_type=event.type,
        value_minor=event.value_minor,
        currency=event.currency,
    )


def acceptance_fact(event: AssignmentAccepted) -> Fact:
    """A rep took the lead."""
    return _fact(event, type=ACCEPTANCE)


def handoff_fact(event: LeadHandedOff) -> Fact:
    """A customer was handed over when the deal was won. However often that is told anew, it is one fact."""
    won_at = event.first_won_at or event.won_at
    event_id = EventId(f"handed-off:{event.deal_id}:{won_at.isoformat()}")
    fields = {"type": WITHDRAWN if event.withdrawn else HANDED_OFF}
    return Fact(event_id, event.lead_id, event.won_at, event.received_at, fields)


def _fact(event: Event, **fields: object) -> Fact:
    return Fact(event.event_id, event.lead_id, event.occurred_at, event.received_at, present(**fields))


async def opened(connection: Connection, keys: PersonKeys, facts: Sequence[Fact]) -> list[Fact]:
    """The facts with their properties readable; raises Unavailable while a key is on its way."""
    texts = await keys.open_many(connection, [(fact.lead_id, fact.sealed) for fact in facts])
    return [fact if text is None else _with_properties(fact, text) for fact, text in zip(facts, texts, strict=True)]


def _with_properties(fact: Fact, text: bytes) -> Fact:
    properties = TouchPersonal.model_validate_json(text).properties
    return replace(fact, fields={**fact.fields, "properties": properties}) if properties else fact


def run_started(run: Run, event_id: EventId, cause: EventId, at: datetime) -> EnrolmentStarted:
    """The fact that a run began, or goes on."""
    return EnrolmentStarted(
        event_id=event_id,
        lead_id=run.lead_id,
        occurred_at=at,
        received_at=at,
        enrolment_id=run.enrolment_id,
        sequence_id=run.sequence_id,
        sequence_version=run.version,
        run=run.run,
        cause_event_id=cause,
        triggered_at=run.triggered_at,
    )


def run_ended(run: Run, reason: str, at: datetime) -> EnrolmentEnded:
    """The fact that a run is over."""
    return EnrolmentEnded(
        event_id=EventId(f"enrolment-ended:{run.enrolment_id}"),
        lead_id=run.lead_id,
        occurred_at=at,
        received_at=at,
        enrolment_id=run.enrolment_id,
        sequence_id=run.sequence_id,
        reason=reason,
    )
