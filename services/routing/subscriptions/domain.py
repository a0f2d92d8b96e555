"""What a subscription wants of the facts that services tell each other, and what it gets. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import orjson

from services.routing.webhooks.domain import Outgoing
from shared.errors import FieldError
from shared.events import EVENT_OF, TOPIC_OF, Event
from shared.ids import LeadId
from shared.rules import OPEN, Expression, ExpressionFault, InvalidDocument, Vocabulary, compile_expression

INNER = frozenset({"keys", "deliveries", "exports", "erasures"})
"""Topics by which services work together: nobody else can do anything with them."""

TYPES = tuple(sorted(name for name, kind in EVENT_OF.items() if TOPIC_OF[kind] not in INNER))
TOPIC_OF_TYPE = MappingProxyType({name: TOPIC_OF[EVENT_OF[name]] for name in TYPES})
VOCABULARY = Vocabulary({"event": OPEN})
SEALED = "personal"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which facts go to an endpoint: of these types, for which the filter holds, received from `since` on.

    `opens` says that what is known of the person goes along, readable. `run` counts how often it began anew: what is
    told again goes under an id of its own.
    """

    subscription_id: str
    endpoint_id: str
    types: frozenset[str]
    filter: Expression | None
    opens: bool
    since: datetime
    run: int

    @property
    def topics(self) -> list[str]:
        """The topics that carry what it wants."""
        return sorted({TOPIC_OF_TYPE[name] for name in self.types})

    def wants(self, event: Event) -> bool:
        """Whether a fact is for it."""
        if event.ce_type not in self.types or event.received_at < self.since:
            return False
        return self.filter is None or self.filter.holds({"event": seen(event)})[0]

    def delivery_id(self, event: Event) -> str:
        """The id under which the endpoint gets a fact: the fact's own, the first time."""
        own = f"{self.subscription_id}.{event.event_id}"
        return own if self.run == 1 else f"{own}.{self.run}"


def checked_filter(source: str | None, types: Collection[str] = ()) -> Expression | None:
    """A filter, compiled; one that reads what no fact of these `types` has is refused. Raises InvalidDocument."""
    if source is None:
        return None
    try:
        expression = compile_expression(source, VOCABULARY, "/filter")
    except ExpressionFault as fault:
        error = FieldError(fault.pointer, fault.detail, fault.column)
        raise InvalidDocument("the filter cannot work", [error]) from fault
    fields = {"type"}.union(*(EVENT_OF[name].model_fields for name in types)) - {SEALED, "position"}
    unknown = sorted({path[1] for path in expression.references if len(path) > 1} - fields) if types else []
    if unknown:
        detail = f"no fact of these types has {', '.join(unknown)}; they have {', '.join(sorted(fields))}"
        raise InvalidDocument("the filter cannot work", [FieldError("/filter", detail)])
    return expression


def seen(event: Event) -> dict[str, Any]:
    """A fact as filters see it and endpoints get it: everything but what is sealed."""
    told: dict[str, Any] = event.model_dump(mode="json", exclude_none=True, exclude={SEALED, "position"})
    return {"type": event.ce_type, **told}


def outgoing(subscription: Subscription, event: Event, opened: bytes | None) -> Outgoing:
    """A fact on its way to the endpoint, in the envelope of Standard Webhooks."""
    data = seen(event)
    kind = data.pop("type")
    sealed_for: Sequence[LeadId] = ()
    if opened is not None:
        data[SEALED] = orjson.loads(opened)
        sealed_for = (event.lead_id,)
    body = {"type": kind, "timestamp": event.occurred_at, "data": data}
    return Outgoing(
        subscription.delivery_id(event),
        subscription.endpoint_id,
        kind,
        orjson.dumps(body, option=orjson.OPT_UTC_Z),
        ordering_key=event.lead_id,
        sealed_for=sealed_for,
    )


def sealed_block(event: Event) -> str | None:
    """What is sealed in a fact, if it has any of that."""
    block: str | None = getattr(event, SEALED, None)
    return block
