"""What a broadcast looks like when it is written down, and what it is as a sequence of one step."""

import re
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field, model_validator

from services.nurture.sequences.document import Condition, Purpose, Send, SequenceDocument, TimeOfDay, UnderPressure
from services.nurture.sequences.domain import PERSON, compile_plan
from services.nurture.templates.document import Shape, Utm
from shared.consents import MARKETING
from shared.errors import FieldError
from shared.ids import SequenceId
from shared.rules import Expression, ExpressionFault, InvalidDocument, compile_expression

STEP = "message"
WAIT = "local-time"
OTHER_DOMAINS = "*"
_SEND = re.compile(r"^/steps/\d/send")
DomainName = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9.-]{0,252})$", examples=["gmail.com"])]
LeadIdText = Annotated[str, Field(min_length=1, max_length=100)]


class Audience(Shape):
    """Who is meant: a segment of scoring, those for whom an expression holds, or these leads."""

    segment: str | None = Field(default=None, min_length=1, max_length=100)
    where: Condition | None = None
    leads: list[LeadIdText] | None = Field(default=None, min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Audience":
        if sum(part is not None for part in (self.segment, self.where, self.leads)) != 1:
            raise ValueError("an audience is one of segment, where and leads")
        return self


class Rate(Shape):
    """How many messages may leave in a minute or an hour, at even distances, and how many a minute to a domain.

    `domains` bounds emails to these domains, `*` those to each other one.
    """

    per_minute: int | None = Field(default=None, ge=1, le=600_000)
    per_hour: int | None = Field(default=None, ge=1, le=36_000_000)
    domains: dict[DomainName, Annotated[int, Field(ge=1, le=600_000)]] | None = Field(
        default=None, min_length=1, max_length=200
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Rate":
        given = [one is not None for one in (self.per_minute, self.per_hour)]
        if all(given) or not (any(given) or self.domains):
            raise ValueError("a rate is one of per_minute and per_hour, or the rates of domains, or both")
        return self

    @property
    def interval(self) -> timedelta | None:
        """From one message to the next; None where only domains have a rate."""
        if self.per_minute is not None:
            return timedelta(minutes=1) / self.per_minute
        return timedelta(hours=1) / self.per_hour if self.per_hour is not None else None


class BroadcastDocument(Shape):
    """A broadcast as it is written and stored."""

    name: str = Field(min_length=1, max_length=200)
    message: Send
    audience: Audience
    purpose: Purpose = MARKETING
    local_time: TimeOfDay | None = Field(default=None, description="When it comes where each person is, from the start")
    rate: Rate | None = None
    pressure: UnderPressure | None = None
    utm: Utm | None = None

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def as_sequence(self) -> SequenceDocument:
        """The sequence that its people run through: this message, at its time. Nothing triggers it."""
        said = self.as_json()
        message = {"id": STEP, "send": said["message"]}
        shared = {name: said[name] for name in ("name", "purpose", "pressure", "utm") if name in said}
        steps = [message]
        if self.local_time is not None:
            steps.insert(0, {"id": WAIT, "wait_until": {"time": self.local_time}})
        return SequenceDocument.model_validate({**shared, "trigger": "false", "active": True, "steps": steps})

    @property
    def first_step(self) -> str:
        """Where its people begin."""
        return STEP if self.local_time is None else WAIT


@lru_cache(maxsize=200)
def condition(source: str) -> Expression:
    """Whom an expression means. Raises ExpressionFault."""
    return compile_expression(source, PERSON, "/audience/where")


def in_broadcast(pointer: str) -> str:
    """A place in the sequence that a broadcast is, as the place in the broadcast."""
    return _SEND.sub("/message", pointer)


def check(document: BroadcastDocument) -> None:
    """Whether a broadcast makes sense. Raises InvalidDocument that lists every fault with its place."""
    faults: list[FieldError] = []
    try:
        compile_plan(SequenceId("broadcast"), 1, document.as_sequence())
    except InvalidDocument as refused:
        faults += [replace(fault, pointer=in_broadcast(fault.pointer)) for fault in refused.errors]
    if document.audience.where is not None:
        try:
            condition(document.audience.where)
        except ExpressionFault as fault:
            faults.append(FieldError(fault.pointer, fault.detail, fault.column))
    if faults:
        raise InvalidDocument(f"the broadcast has {len(faults)} faults", errors=faults)
