"""A pipeline as it is written: the stages of a deal, what each asks for, and what follows when deals end."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.routing.reps.inputs import TimeZone

WON = "won"
LOST = "lost"
StageId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
PipelineId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
ReasonId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4_000)]
Days = Annotated[int, Field(ge=1, le=3_660)]
DEFAULT_ID = "default"
RENEWALS_ID = "renewals"
ROT_DAYS = 30
OTHER = "other"
Forecast = Literal["pipeline", "best_case", "committed"]
Strategy = Literal["round_robin", "least_loaded", "account_owner", "soonest_available", "highest_seniority"]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CriterionShape(_Shape):
    """What has to hold before a deal goes on: CEL over `deal` and `lead`."""

    id: StageId
    when: Condition


class StageShape(_Shape):
    """A stage of open deals; `probability` is in percent.

    `required` fields have to be there when a deal enters or passes the stage, `exit` to hold when it goes on from it.
    `force` allows a move all the same, with a reason. After `rot_days` without a change it rots.
    """

    id: StageId
    name: str = Field(min_length=1, max_length=200)
    probability: int = Field(ge=0, le=100)
    required: list[str] = Field(default_factory=list, max_length=50)
    exit: list[CriterionShape] = Field(default_factory=list, max_length=50)
    force: bool = False
    rot_days: Days | None = None
    forecast: Forecast | None = None


class ReasonShape(_Shape):
    """Why deals are lost."""

    id: ReasonId
    name: str = Field(min_length=1, max_length=200)


LOST_REASONS: tuple[ReasonShape, ...] = tuple(
    ReasonShape(id=name.lower().replace(" ", "_"), name=name)
    for name in (
        "Pricing",
        "Competition",
        "Budget",
        "Missing features",
        "Long cycle",
        "No decision maker",
        "Unresponsive",
        "Poor fit",
        "Other",
    )
)


class DueShape(_Shape):
    """A span of time after a deal was won."""

    hours: int = Field(default=0, ge=0, le=87_600)
    days: int = Field(default=0, ge=0, le=3_650)

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if not self.hours and not self.days:
            raise ValueError("is due after hours or days")
        return self


class TaskShape(_Shape):
    """Something customer success does with a new customer."""

    id: StageId
    title: str = Field(min_length=1, max_length=200)
    due: DueShape


class OwnerShape(_Shape):
    """Who has the customer: a rep of a queue of the routing rules, chosen by a strategy, or one rep."""

    queue: str | None = Field(default=None, max_length=200)
    strategy: Strategy = "round_robin"
    rep_id: str | None = Field(default=None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.queue is None) == (self.rep_id is None):
            raise ValueError("an owner comes from a queue or is a rep, one of them")
        return self


class HandoffShape(_Shape):
    """What happens when a deal is won: what has to be known by then, and who does what. Without `owner` the deal's rep.

    With `block` a deal that misses something is not won; otherwise the hand-off shows what is missing.
    """

    required: list[str] = Field(default_factory=list, max_length=50)
    block: bool = False
    tasks: list[TaskShape] = Field(default_factory=list, max_length=50)
    owner: OwnerShape | None = None


class RenewalShape(_Shape):
    """A deal to renew a contract, opened so long before it ends, on that day of a time zone (UTC when left out)."""

    days_before: Days = 90
    pipeline: PipelineId = RENEWALS_ID
    time_zone: TimeZone | None = None

    def today(self, now: datetime) -> date:
        """The day by which contracts end."""
        return now.astimezone(UTC if self.time_zone is None else ZoneInfo(self.time_zone)).date()


class PipelineDocument(_Shape):
    """A pipeline as it is written, stored and versioned: its stages in order, a new deal starting in the first."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    stages: list[StageShape] = Field(min_length=1, max_length=50)
    rot_days: Days = ROT_DAYS
    lost_reasons: list[ReasonShape] = Field(default_factory=lambda: list(LOST_REASONS), max_length=100)
    handoff: HandoffShape | None = None
    renewal: RenewalShape | None = None

    @field_validator("stages")
    @classmethod
    def _distinct(cls, stages: list[StageShape]) -> list[StageShape]:
        seen: set[str] = {WON, LOST}
        for stage in stages:
            if stage.id in seen:
                raise ValueError(f"{stage.id} is there twice, or is one of the two ends, won and lost")
            seen.add(stage.id)
        return stages

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        lists = [[reason.id for reason in self.lost_reasons], *([one.id for one in s.exit] for s in self.stages)]
        lists += [[task.id for task in self.handoff.tasks]] if self.handoff is not None else []
        for ids in lists:
            if twice := next((one for one in ids if ids.count(one) > 1), None):
                raise ValueError(f"{twice} is there twice")
        return self

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored."""
        return self.model_dump(mode="json", exclude_none=True)


GATE = ["notes.contract_terms", "notes.scope", "stakeholders", "use_case", "notes.success_criteria", "notes.risks"]
"""What a hand-off should tell, the date of renewal besides: the end of the contract."""
DEFAULT_PIPELINE = PipelineDocument(
    name="Sales",
    stages=[
        StageShape(id="qualification", name="Qualification", probability=10),
        StageShape(id="needs_confirmed", name="Needs confirmed", probability=25),
        StageShape(id="proposal_reviewed", name="Proposal reviewed by buyer", probability=50),
        StageShape(id="negotiation", name="Negotiation", probability=70),
        StageShape(id="verbal_yes", name="Verbal yes, contract sent", probability=90),
    ],
    handoff=HandoffShape(
        required=[*GATE, "contract_ends_on"],
        tasks=[
            TaskShape(id="introduction", title="Introduction", due=DueShape(hours=24)),
            TaskShape(id="kickoff_invited", title="Kick-off invited", due=DueShape(hours=48)),
            TaskShape(id="kickoff_held", title="Kick-off held", due=DueShape(days=14)),
            TaskShape(id="first_health_score", title="First health score", due=DueShape(days=21)),
        ],
    ),
    renewal=RenewalShape(),
)
RENEWALS = PipelineDocument(
    name="Renewals",
    stages=[
        StageShape(id="due", name="Renewal due", probability=50),
        StageShape(id="proposed", name="Renewal proposed", probability=70),
        StageShape(id="agreed", name="Verbal yes, contract sent", probability=90),
    ],
    renewal=RenewalShape(),
)
"""Where renewals go by default. Their first two probabilities are a first guess; measured ones replace them."""
