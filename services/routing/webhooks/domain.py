"""What is delivered to endpoints, and how long it is kept. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from shared.ids import LeadId

EndpointState = Literal["active", "suspended", "ended"]
EndpointKind = Literal["webhook", "crm"]
CLAIM_FOR = timedelta(seconds=60)
"""So long a delivery belongs to whoever took it: before that they may still be about it."""
KEPT = timedelta(days=7)
"""How long what could not be delivered is kept, and what became of the rest is told."""
MOST_FAILURES = 100
"""So many failures of an endpoint in a row suspend it."""
WAS_AWAY = 5
"""After so many in a row one success says that it is back: then nothing waits out its pause, which may be hours."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Something to be delivered to an endpoint: twice the same id and endpoint is once.

    The id is the `webhook-id`, the same at every try. What has the same `ordering_key` (a lead's id) arrives in the
    order it was enqueued: the next is tried when the one before is delivered or given up. With `sealed_for`, the ids of
    a person, the body is kept sealed with their key, and nothing is delivered once they are erased.
    """

    delivery_id: str
    endpoint_id: str
    kind: str
    body: bytes
    ordering_key: str | None = None
    sealed_for: Sequence[LeadId] = ()
