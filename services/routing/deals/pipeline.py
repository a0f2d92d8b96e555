"""The stages a deal goes through, and how likely each makes it that the deal is won."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

WON = "won"
LOST = "lost"
StageId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StageShape(_Shape):
    """A stage of open deals; `probability` is in percent."""

    id: StageId
    name: str = Field(min_length=1, max_length=200)
    probability: int = Field(ge=0, le=100)


class PipelineDocument(_Shape):
    """A pipeline as it is written, stored and versioned: its stages in order, a new deal starting in the first."""

    stages: list[StageShape] = Field(min_length=1, max_length=50)

    @field_validator("stages")
    @classmethod
    def _distinct(cls, stages: list[StageShape]) -> list[StageShape]:
        seen: set[str] = {WON, LOST}
        for stage in stages:
            if stage.id in seen:
                raise ValueError(f"{stage.id} is there twice, or is one of the two ends, won and lost")
            seen.add(stage.id)
        return stages

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored."""
        return self.model_dump(mode="json")


DEFAULT_PIPELINE = PipelineDocument(
    stages=[
        StageShape(id="qualification", name="Qualification", probability=10),
        StageShape(id="needs_confirmed", name="Needs confirmed", probability=25),
        StageShape(id="proposal_reviewed", name="Proposal reviewed by buyer", probability=50),
        StageShape(id="negotiation", name="Negotiation", probability=70),
        StageShape(id="verbal_yes", name="Verbal yes, contract sent", probability=90),
    ]
)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One version of a pipeline: the probability of each stage, in order."""

    version: int
    probabilities: Mapping[str, int]

    @classmethod
    def of(cls, version: int, document: PipelineDocument) -> "Pipeline":
        """From the document."""
        return cls(version, {stage.id: stage.probability for stage in document.stages})

    @property
    def first(self) -> str:
        """Where a new deal starts."""
        return next(iter(self.probabilities))
