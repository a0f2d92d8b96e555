"""Pipelines that make sense: a document compiled, and how likely each stage makes it that a deal is won."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.routing.deals.inputs import Notes
from services.routing.deals.pipeline import (
    DEFAULT_ID,
    OTHER,
    CriterionShape,
    Forecast,
    HandoffShape,
    PipelineDocument,
    RenewalShape,
    StageShape,
)
from services.routing.people.domain import FIELDS as PERSON
from shared.errors import FieldError
from shared.profiles import LEAD
from shared.rules import (
    INTEGER,
    TEXT,
    TEXTS,
    Expression,
    ExpressionFault,
    InvalidDocument,
    Vocabulary,
    compile_expression,
)

ENOUGH = 50
"""So many deals have to have passed a stage and ended before what was measured counts."""
CERTAIN, LIKELY = 90, 50
"""From these probabilities on an open deal counts as committed, or as best case, where its stage does not say."""
NOTES = tuple(Notes.model_fields)
DEAL = {
    "deal_id": TEXT,
    "external_id": TEXT,
    "name": TEXT,
    "pipeline": TEXT,
    "stage": TEXT,
    "probability": INTEGER,
    "value_minor": INTEGER,
    "currency": TEXT,
    "recurring_minor": INTEGER,
    "annual_minor": INTEGER,
    "expected_close_on": TEXT,
    "contract_starts_on": TEXT,
    "contract_ends_on": TEXT,
    "products": TEXTS,
    "roles": TEXTS,
    "rep_id": TEXT,
    "renewal_of": TEXT,
    "notes": dict.fromkeys(NOTES, TEXT),
}
"""What exit criteria may read of a deal; dates are texts, 2026-03-31, so that they compare."""
CRITERIA = Vocabulary({"deal": DEAL, "lead": PERSON["lead"]})
DEAL_FIELDS = frozenset(
    {"value_minor", "recurring_minor", "expected_close_on", "contract_starts_on", "contract_ends_on", "lines"}
    | {"stakeholders", "use_case", "rep_id", "external_id"}
)


@dataclass(frozen=True, slots=True)
class Criterion:
    """What has to hold before a deal goes on."""

    criterion_id: str
    when: Expression


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of open deals."""

    stage_id: str
    name: str
    probability: int
    required: tuple[str, ...]
    exit: tuple[Criterion, ...]
    force: bool
    rot_days: int
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Passed:
    """Of the deals that were in a stage and have ended, how many there are and how many were won."""

    won: int
    closed: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One version of a pipeline, compiled. `measured` is what became of the deals that passed each stage."""

    version: int
    pipeline_id: str
    name: str
    stages: tuple[Stage, ...]
    rot_days: int
    lost_reasons: tuple[str, ...]
    handoff: HandoffShape | None
    renewal: RenewalShape | None

    @property
    def probabilities(self) -> Mapping[str, int]:
        """The probability of each stage as the document says, in order."""
        return {stage.stage_id: stage.probability for stage in self.stages}

    @property
    def first(self) -> str:
        """Where a new deal starts."""
        return self.stages[0].stage_id

    def stage(self, stage_id: str) -> Stage | None:
        """A stage, None where the document has none of this id."""
        return next((stage for stage in self.stages if stage.stage_id == stage_id), None)

    def stands_for(self, stage_id: str, order: Sequence[str]) -> str | None:
        """The stage that a deal goes on from which stands in one that may be gone: the next one that is left.

        `order` are the stages of the version by which it came there; None: that had none after it that is left.
        """
        later = order[order.index(stage_id) :] if stage_id in order else (stage_id, *self.probabilities)
        return next((name for name in later if name in self.probabilities), None)

    def onwards(self, stage_id: str | None, to: str | None) -> Sequence[Stage]:
        """The stages that a deal goes through from one to another, both included; to None, to the end.

        None where it goes back, or comes from behind the last one (None).
        """
        ids = list(self.probabilities)
        start = len(ids) if stage_id is None else ids.index(stage_id)
        end = len(ids) if to is None else ids.index(to) + 1
        return self.stages[start:end]


def chance(stage: Stage, measured: Mapping[str, Passed]) -> int:
    """How likely a deal in this stage is won, in percent: measured, once enough deals have passed it."""
    passed = measured.get(stage.stage_id)
    if passed is None or passed.closed < ENOUGH:
        return stage.probability
    return round(100 * passed.won / passed.closed)


def forecast_of(probability: int) -> Forecast:
    """What an open deal counts as that is won with this probability in percent, where its stage does not say."""
    if probability >= CERTAIN:
        return "committed"
    return "best_case" if probability >= LIKELY else "pipeline"


def compile_pipeline(version: int, document: PipelineDocument, pipeline_id: str = DEFAULT_ID) -> Pipeline:
    """Make sense of a document. Raises InvalidDocument that lists every fault with its place."""
    faults: list[FieldError] = []
    stages = tuple(_stage(shape, document, f"/stages/{index}", faults) for index, shape in enumerate(document.stages))
    if document.handoff is not None:
        faults += _unknown_fields(document.handoff.required, "/handoff/required")
    if faults:
        raise InvalidDocument(f"{len(faults)} parts of the pipeline cannot work", faults)
    return Pipeline(
        version=version,
        pipeline_id=pipeline_id,
        name=document.name or pipeline_id,
        stages=stages,
        rot_days=document.rot_days,
        lost_reasons=tuple(reason.id for reason in document.lost_reasons) or (OTHER,),
        handoff=document.handoff,
        renewal=document.renewal,
    )


def _stage(shape: StageShape, document: PipelineDocument, place: str, faults: list[FieldError]) -> Stage:
    faults += _unknown_fields(shape.required, f"{place}/required")
    criteria = [_criterion(one, f"{place}/exit/{index}/when", faults) for index, one in enumerate(shape.exit)]
    return Stage(
        stage_id=shape.id,
        name=shape.name,
        probability=shape.probability,
        required=tuple(shape.required),
        exit=tuple(one for one in criteria if one is not None),
        force=shape.force,
        rot_days=shape.rot_days or document.rot_days,
        forecast=shape.forecast or forecast_of(shape.probability),
    )


def _criterion(shape: CriterionShape, pointer: str, faults: list[FieldError]) -> Criterion | None:
    try:
        return Criterion(shape.id, compile_expression(shape.when, CRITERIA, pointer))
    except ExpressionFault as fault:
        faults.append(FieldError(fault.pointer, fault.detail, fault.column))
        return None


def _unknown_fields(required: Sequence[str], pointer: str) -> list[FieldError]:
    """The names that are no field of a deal or of a lead."""
    faults = []
    for index, name in enumerate(required):
        kind, _, rest = name.partition(".")
        known = {
            "notes": rest in NOTES,
            "lead": rest in LEAD,
            "stakeholders": not rest or rest.isidentifier(),
        }.get(kind, name in DEAL_FIELDS)
        if not known:
            offered = ", ".join(sorted(DEAL_FIELDS | {f"notes.{note}" for note in NOTES}))
            detail = f"there is no field {name}; there are {offered}, stakeholders.ROLE and lead.FIELD"
            faults.append(FieldError(f"{pointer}/{index}", detail))
    return faults
