"""What routing rules look like when they are written down: the shape alone, not yet whether they make sense."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.ids import RepId

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4_000)]
Value = Annotated[str, Field(min_length=1, max_length=500)]
Minutes = Annotated[int, Field(ge=1, le=43_200)]
Strategy = Literal[
    "round_robin",
    "least_loaded",
    "account_owner",
    "deal_owner",
    "previous_owner",
    "soonest_available",
    "highest_seniority",
]
Audience = Literal["rep", "owner", "manager"]
OnBreach = Literal["reroute", "escalate", "none"]
ROUTE_WHEN = "stage in ['mql', 'sal', 'sql']"


class Shape(BaseModel):
    """A part of a routing document: no unknown fields, no guessing of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EscalationShape(Shape):
    """At this share of the time (in per cent, 100 is its end) somebody is told, and the lead perhaps given to another.

    `rep` has the lead, `owner` is who owns its account, `manager` the rep's.
    """

    at: int = Field(ge=100, le=1_000)
    notify: list[Audience] = Field(default_factory=list, max_length=3)
    reroute: bool = False


class SlaShape(Shape):
    """How soon the rep has to accept, and to get in touch, in minutes of the rep's working time.

    `remind_at` are the shares of the time, in per cent, at which the rep is reminded. When it is over, `reroute` gives
    the lead to the next rep, `escalate` follows the ladder, `none` only counts it. Left out, an offer is re-routed and
    a lead nobody was in touch with stays where it is, the rep, the owner and then the manager told.
    """

    accept_minutes: Minutes | None = None
    touch_minutes: Minutes | None = None
    remind_at: list[Annotated[int, Field(ge=1, le=99)]] | None = Field(default=None, max_length=10)
    on_breach: OnBreach | None = None
    escalate: list[EscalationShape] | None = Field(default=None, min_length=1, max_length=10)

    @model_validator(mode="after")
    def _makes_sense(self) -> "SlaShape":
        if self.remind_at is not None and sorted(set(self.remind_at)) != self.remind_at:
            raise ValueError("remind_at is in ascending order, each share once")
        if self.escalate is not None:
            if self.on_breach not in (None, "escalate"):
                raise ValueError("escalate is followed only where on_breach is escalate")
            shares = [step.at for step in self.escalate]
            if sorted(set(shares)) != shares:
                raise ValueError("escalate is in ascending order, each share once")
            if any(step.reroute for step in self.escalate[:-1]):
                raise ValueError("only the last step of escalate re-routes, since then the time begins anew")
        return self


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


class CatchUpShape(Shape):
    """Which missed leads a queue makes up for: with `capacity` those missed at the rep's own limit."""

    capacity: bool = False


class QueueShape(Shape):
    """Reps by name, or all for whom `who` holds.

    `cycle` begins the books of the queue anew with each calendar month (UTC): whole leads owed are forgotten then.
    With `claim` a lead is offered to all of them at once, and the first to claim it has it. Who works first of them has
    `claim_minutes` of working time for that (left out: what the rule gives to accept, else an hour); after that the
    strategy decides.
    """

    id: Name
    members: list[MemberShape] | None = Field(default=None, min_length=1, max_length=1_000)
    who: Condition | None = None
    catch_up: CatchUpShape | None = None
    cycle: Literal["monthly"] | None = None
    claim: bool | None = None
    claim_minutes: Minutes | None = None

    @model_validator(mode="after")
    def _says_who(self) -> "QueueShape":
        if (self.members is None) == (self.who is None):
            raise ValueError("a queue has members or who, one of them")
        if self.claim_minutes is not None and not self.claim:
            raise ValueError("claim_minutes is for a queue with claim")
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


class ReEntryShape(Shape):
    """For how many days a lead that comes back goes to the rep who took it last, and for which leads `when` says."""

    days: int = Field(ge=0, le=3_650)
    when: Condition | None = None


class TerritoryShape(Shape):
    """Leads that have all that is said here are in this territory, unless another row that says more fits as well."""

    territory: Annotated[str, Field(min_length=1, max_length=200)]
    country: Value | None = None
    region: Value | None = None
    industry: Value | None = None
    use_case: Value | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> "TerritoryShape":
        if not self.wanted:
            raise ValueError("a territory asks for a country, region, industry or use_case")
        return self

    @property
    def wanted(self) -> dict[str, str]:
        """What a lead must have."""
        return self.model_dump(exclude={"territory"}, exclude_none=True)


class RoutingDocument(Shape):
    """Routing rules as they are written, stored and versioned. Without `re_entry` a lead's rep is never forgotten.

    Conditions of rules and queues read as `territory` where a lead is by the table `territories`.
    """

    route_when: Condition = ROUTE_WHEN
    rules: list[RuleShape] = Field(default_factory=list, max_length=500)
    queues: list[QueueShape] = Field(min_length=1, max_length=500)
    catch_all: CatchAllShape
    re_entry: ReEntryShape | None = None
    territories: list[TerritoryShape] | None = Field(default=None, max_length=20_000)

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored: defaults spelt out, so that a later default changes no stored rules."""
        return self.model_dump(mode="json", exclude_none=True)


DEFAULT = RoutingDocument.model_validate(
    {
        "queues": [{"id": "everybody", "who": "true", "cycle": "monthly"}],
        "catch_all": {
            "queue": "everybody",
            "strategy": "round_robin",
            "sla": {"accept_minutes": 240, "touch_minutes": 60},
        },
    }
)
"""What a new installation starts with: every lead to the next rep, to be accepted within four working hours."""
