"""What is counted of a person: marks, each something that happened at a moment, made of all the facts at once. Pure.

Marks are a function of the set of facts about a person and nothing else. Reports are sums of marks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from services.attribution.channels.domain import NOT_SET
from services.attribution.pipeline.lapses import SECOND, UNTIMED, bucket_of
from shared.ids import AssignmentId, ConversionId, DealId

Kind = Literal[
    "lead_entered",
    "lead_skipped",
    "lead_next",
    "lead_last",
    "lead_left",
    "deal_entered",
    "deal_skipped",
    "deal_next",
    "deal_last",
    "deal_left",
    "captured",
    "mql",
    "offered",
    "sla",
    "created",
    "open",
    "won",
    "lost",
    "recurring",
    "revenue",
]
TIMED: frozenset[Kind] = frozenset(
    {"lead_next", "lead_last", "deal_next", "deal_last", "captured", "mql", "offered", "won", "lost"}
)
"""What tells how long something took. By dimension and day nearly each of these would be a sum of its own, so that they
are summed by month only."""
Dimension = Literal["rep", "team", "channel", "source", "campaign", "country", "account"]
Outcome = Literal["kept", "breached", "rejected", "replaced", "withdrawn", "pending"]


class Owner(NamedTuple):
    """Who something counts for: a rep, and the teams that the rep was in."""

    rep: str = NOT_SET
    teams: tuple[str, ...] = ()


NOBODY = Owner()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a person counts under: the first touch that a human made, and the profile."""

    channel: str = NOT_SET
    source: str = NOT_SET
    campaign: str = NOT_SET
    country: str = NOT_SET
    account: str = NOT_SET


class Mark(NamedTuple):
    """Something that is counted. `ref` names the deal, assignment or conversion that it is about, if any.

    `lapse` is how long it took in microseconds, `weighted_minor` a value times its probability in percent. Of what
    lasts a while (an open deal), one mark adds it and a later one, with a negative count, takes it away.
    """

    kind: Kind
    step: str
    ref: str
    at: datetime
    owner: Owner = NOBODY
    currency: str = ""
    number: int = 1
    value_minor: int = 0
    weighted_minor: int = 0
    lapse: int | None = None

    @property
    def bucket(self) -> int:
        """Where its time is counted."""
        return UNTIMED if self.lapse is None else bucket_of(self.lapse / SECOND)


@dataclass(frozen=True, slots=True)
class Assigned:
    """A lead given to a rep, and how the rep answered."""

    assignment_id: AssignmentId
    at: datetime
    owner: Owner
    revision: int
    due_at: datetime | None = None
    accepted_at: datetime | None = None
    rejected_at: datetime | None = None
    expired_at: datetime | None = None

    @property
    def place(self) -> tuple[datetime, int, AssignmentId]:
        """Where it stands among the assignments of a person."""
        return self.at, self.revision, self.assignment_id


@dataclass(frozen=True, slots=True)
class DealStep:
    """How a deal stood after a change; from the revision `begins` on the deal was told anew, if it was."""

    revision: int
    at: datetime
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int
    currency: str
    opened_at: datetime
    recurring_minor: int = 0
    owner: Owner = NOBODY
    closed_at: datetime | None = None
    pipeline_stages: tuple[str, ...] = ()
    begins: int = 0


@dataclass(frozen=True, slots=True)
class Payment:
    """What is left of a conversion's value."""

    conversion_id: ConversionId
    at: datetime
    value_minor: int
    currency: str
    deal_id: DealId | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of a person here, under whatever ids it was told. `stages`: when each was first entered."""

    circumstances: Circumstances = Circumstances()
    captured_at: datetime | None = None
    erased: bool = False
    stages: Mapping[str, datetime] = field(default_factory=dict)
    assignments: Sequence[Assigned] = ()
    contacts: Sequence[datetime] = ()
    deals: Mapping[DealId, Sequence[DealStep]] = field(default_factory=dict)
    payments: Sequence[Payment] = ()
