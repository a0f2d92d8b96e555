"""Other services' facts in the shape in which expressions see them."""

from collections.abc import Sequence
from dataclasses import replace

from services.nurture.enrolments.domain import Fact
from shared.db import Connection
from shared.events import (
    AssignmentAccepted,
    ConversionRecorded,
    Event,
    StageChanged,
    TouchPersonal,
    TouchRecorded,
)
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


def conversion_fact(event: ConversionRecorded) -> Fact:
    """A success."""
    return _fact(
        event,
        type="conversion_recorded",
        origin=event.origin,
        conversion_type=event.type,
        value_minor=event.value_minor,
        currency=event.currency,
    )


def acceptance_fact(event: AssignmentAccepted) -> Fact:
    """A rep took the lead."""
    return _fact(event, type="assignment_accepted")


def _fact(event: Event, **fields: object) -> Fact:
    return Fact(event.event_id, event.lead_id, event.occurred_at, event.received_at, present(**fields))


async def opened(connection: Connection, keys: PersonKeys, facts: Sequence[Fact]) -> list[Fact]:
    """The facts with their properties readable; raises Unavailable while a key is on its way."""
    texts = await keys.open_many(connection, [(fact.lead_id, fact.sealed) for fact in facts])
    return [fact if text is None else _with_properties(fact, text) for fact, text in zip(facts, texts, strict=True)]


def _with_properties(fact: Fact, text: bytes) -> Fact:
    properties = TouchPersonal.model_validate_json(text).properties
    return replace(fact, fields={**fact.fields, "properties": properties}) if properties else fact
