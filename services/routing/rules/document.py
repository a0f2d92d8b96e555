"""What routing rules look like when they are written down: the shape alone, not yet whether they make sense."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.ids import RepId

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4_000)]
Minutes = Annotated[int, Field(ge=1, le=43_200)]
Strategy = Literal[
    "round_robin", "least_loaded", "account_owner", "previous_owner", "soonest_available", "highest_seniority"
]
ROUTE_WHEN = "stage in ['mql', 'sal', 'sql']"


class Shape(BaseModel):
    """A part of a routing document: no unknown fields, no guessing of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SlaShape(Shape):
    """How soon the rep has to accept, and to get in touch, in minutes of the rep's working time."""

    accept_minutes: Minutes | None = None
    touch_minutes: Minutes | None = None


class RuleShape(Shape):
    """Leads for which `when` holds go to a rep of `queue` (everybody when absent) for whom `who` holds.

    `available` leaves only those who work at this moment. A rule that finds nobody falls through to the next.
    """

    id: Name
    when: Condition
    queue: Name | None = None
    who: Condition | None = None
    strategy: Strategy
    available: bool = False
    sla: SlaShape | None = None


class MemberShape(Shape):
    """A rep in a queue; without a weight the rep's own counts."""

    rep_id: Annotated[str, Field(min_length=1, max_length=200)]
    weight: int | None = Field(default=None, ge=0, le=10_000)


class QueueShape(Shape):
    """Reps by name, or all for whom `who` holds."""

    id: Name
    members: list[MemberShape] | None = Field(default=None, min_length=1, max_length=1_000)
    who: Condition | None = None

    @model_validator(mode="after")
    def _says_who(self) -> "QueueShape":
        if (self.members is None) == (self.who is None):
            raise ValueError("a queue has members or who, one of them")
        return self

    @property
    def reps(self) -> list[RepId]:
        """The members' ids."""
        return [RepId(member.rep_id) for member in self.members or ()]


class CatchAllShape(Shape):
    """Where leads go that no rule places."""

    queue: Name
    strategy: Strategy
    sla: SlaShape | None = None


class RoutingDocument(Shape):
    """Routing rules as they are written, stored and versioned."""

    route_when: Condition = ROUTE_WHEN
    rules: list[RuleShape] = Field(default_factory=list, max_length=500)
    queues: list[QueueShape] = Field(min_length=1, max_length=500)
    catch_all: CatchAllShape

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored: defaults spelt out, so that a later default changes no stored rules."""
        return self.model_dump(mode="json", exclude_none=True)


DEFAULT = RoutingDocument.model_validate(
    {
        "queues": [{"id": "everybody", "who": "true"}],
        "catch_all": {
            "queue": "everybody",
            "strategy": "round_robin",
            "sla": {"accept_minutes": 240, "touch_minutes": 60},
        },
    }
)
"""What a new installation starts with: every lead to the next rep, to be accepted within four working hours."""
