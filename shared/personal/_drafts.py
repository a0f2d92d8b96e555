"""Facts that are not sealed yet."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from shared.events import Event
from shared.ids import EventId, LeadId


@dataclass(frozen=True, slots=True)
class Draft:
    """A fact that is not sealed yet: `personal` is the JSON that goes, encrypted, into its `personal` field."""

    event: Event
    personal: bytes | None = None

    @property
    def lead_id(self) -> LeadId:
        """Whose key seals it."""
        return self.event.lead_id

    @property
    def calm(self) -> bool:
        """Whether nobody waits for it."""
        return self.event.is_calm

    @property
    def received_at(self) -> datetime:
        """When it came in."""
        return self.event.received_at


class Encoded(NamedTuple):
    """A draft of which all but the personal block is encoded already, as it will stand in the log.

    For the hot path alone: it spares a model for each fact. `value` is a JSON object without `personal`.
    """

    kind: type[Event]
    event_id: EventId
    lead_id: LeadId
    occurred_at: str
    received_at: datetime
    value: bytes
    personal: bytes | None = None
    calm: bool = False
