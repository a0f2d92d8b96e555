"""Facts as they were told, those among them that others replaced."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from services.attribution.domain import Conversion, Touch
from shared.ids import AssignmentId, DealId, EventId, LeadId, RepId, TouchId

IdentityKind = Literal["linked", "merged", "unmerged", "erased"]


class IdentityTold(NamedTuple):
    """An id turned out to be somebody's, or did not, or was erased (then `into_id` is None)."""

    event_id: EventId
    kind: IdentityKind
    lead_id: LeadId
    into_id: LeadId | None
    occurred_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class TouchTold:
    """A touch as it was told, perhaps replaced since."""

    lead_id: LeadId
    position: int
    touch: Touch

    @property
    def received_at(self) -> datetime:
        """When it was."""
        return self.touch.received_at

    @property
    def name(self) -> Hashable:
        """What is told of it again goes by."""
        return self.touch.origin, self.touch.touch_id

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two with one name the higher counts."""
        return self.position, self.touch.received_at


@dataclass(frozen=True, slots=True)
class WithdrawalTold:
    """A touch turned out to be a machine's; of several withdrawals the last is known."""

    origin: str
    touch_id: TouchId
    reason: str
    received_at: datetime

    @property
    def name(self) -> Hashable:
        """That of the touch."""
        return self.origin, self.touch_id


@dataclass(frozen=True, slots=True)
class ConversionTold:
    """A conversion as it was told, perhaps replaced since; its value is that before refunds."""

    position: int
    conversion: Conversion

    @property
    def received_at(self) -> datetime:
        """When it was."""
        return self.conversion.received_at

    @property
    def name(self) -> Hashable:
        """What is told of it again goes by."""
        return self.conversion.conversion_id

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two with one name the higher counts."""
        return self.position, self.conversion.received_at


@dataclass(frozen=True, slots=True)
class RefundTold:
    """A refund of the conversion as it was told, perhaps replaced since."""

    refund_id: str
    position: int
    amount_minor: int
    currency: str
    occurred_at: datetime
    received_at: datetime

    @property
    def name(self) -> Hashable:
        """What is told of it again goes by."""
        return self.refund_id

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two with one name the higher counts."""
        return self.position, self.received_at


@dataclass(frozen=True, slots=True)
class ProfileTold:
    """A revision of a profile."""

    lead_id: LeadId
    revision: int
    captured_at: datetime
    country: str | None
    account: str | None
    received_at: datetime

    @property
    def name(self) -> Hashable:
        """What is told of it again goes by."""
        return self.lead_id

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two with one name the higher counts."""
        return (self.revision,)


@dataclass(frozen=True, slots=True)
class DealTold:
    """A revision of a deal."""

    deal_id: DealId
    revision: int
    opened_at: datetime
    rep: str | None
    received_at: datetime

    @property
    def name(self) -> Hashable:
        """What is told of it again goes by."""
        return self.deal_id

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two with one name the higher counts."""
        return (self.revision,)


@dataclass(frozen=True, slots=True)
class AssignmentTold:
    """A lead was given to a rep; it is received when it is decided."""

    assignment_id: AssignmentId
    lead_id: LeadId
    revision: int
    rep_id: RepId
    received_at: datetime

    @property
    def name(self) -> Hashable:
        """What is told of it again goes by."""
        return self.assignment_id

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two with one name the higher counts."""
        return (self.revision,)


Told = IdentityTold | TouchTold | WithdrawalTold | ConversionTold | RefundTold | ProfileTold | DealTold | AssignmentTold
