"""What mail providers' events have in common, and what deliveries of many events have."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parseaddr
from typing import Any

from services.capture.adapters.errors import Unmappable
from services.capture.adapters.facts import Fact, MessageFact, Person
from services.capture.adapters.fields import (
    LONGEST_ADDRESS,
    LONGEST_TEXT,
    happened_at,
    ignored,
    query_of,
    text,
    utm_of,
)
from services.capture.adapters.request import HookRequest
from shared.emails import parse_email

OUR_MESSAGE_ID = "throughline_message_id"
"""The name under which our own id of a message travels through a provider and back."""

_NEVER_PERMANENT = frozenset({"deferred", "blocked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MailEvent:
    """What became of a mail to one recipient. `at` is the provider's time as written, `event` our name for it."""

    key: str
    event: str
    email: str | None
    at: Any
    message_id: str | None
    permanent: bool | None = None
    url: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)

    def fact(self, request: HookRequest) -> MessageFact:
        """The event as a fact; Unmappable if its time is none."""
        at, timed_by = happened_at(self.at, request)
        return MessageFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=self.event,
            person=Person(email=self.email),
            channel="email",
            message_id=self.message_id,
            permanent=False if self.event in _NEVER_PERMANENT else self.permanent,
            url=self.url,
            utm=utm_of(query_of(self.url)),
            properties={name: value for name, raw in self.properties.items() if (value := short(raw)) is not None},
        )


def address(written: Any) -> str | None:
    """The mail address, with or without a name before it; None if it is none."""
    told = text(written) if isinstance(written, str) else None
    if told is None or len(told) > LONGEST_TEXT:
        return None
    return parse_email(parseaddr(told)[1] if "<" in told else told)


def short(value: Any) -> str | None:
    """The value as text of a length that is kept; None for nothing."""
    told = text(value)
    return None if told is None else told[:LONGEST_TEXT]


def link(value: Any) -> str | None:
    """The address of a page as written; None for none, and for one that is too long to be kept."""
    told = text(value) if isinstance(value, str) else None
    return told if told is not None and len(told) <= LONGEST_ADDRESS else None


def content_name(value: Any) -> str:
    """A name for what has none of its own: the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def batch_name(names: Sequence[str]) -> str | None:
    """The name of a delivery of several events: that of the only one, else one for all, in whatever order they came."""
    distinct = sorted(set(names))
    if len(distinct) < 2:
        return distinct[0] if distinct else None
    return hashlib.sha256("\n".join(distinct).encode()).hexdigest()


def facts_of_many(readers: Iterable[tuple[str, Callable[[], Fact]]], request: HookRequest) -> tuple[Fact, ...]:
    """The facts by their keys, each once. One that cannot be mapped holds up no other; Unmappable if that is all."""
    facts: dict[str, Fact] = {}
    faults: list[Unmappable] = []
    for key, read in readers:
        if key in facts:
            continue
        try:
            facts[key] = read()
        except Unmappable as fault:
            faults.append(fault)
            facts[key] = ignored(key, request, "unmappable")
    if faults and len(faults) == len(facts):
        raise faults[0]
    return tuple(facts.values())
