"""What a deal still misses before it may go on, be won, or be handed over. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.routing.deals.domain import Deal
from services.routing.deals.stages import Pipeline, Stage
from shared.errors import FieldError
from shared.rules import present

PLACES = {"use_case": "notes.use_case"}
"""Where a field is told that has another name in a document."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is missing: the field or criterion, where it is asked for, and whether a move may be forced."""

    name: str
    pointer: str
    detail: str
    may_force: bool = False

    @property
    def fault(self) -> FieldError:
        """As it is refused."""
        return FieldError(self.pointer, self.detail)


def values_of(deal: Deal) -> dict[str, Any]:
    """`deal` for exit criteria, without what is absent."""
    return present(
        deal_id=deal.deal_id,
        external_id=deal.external_id,
        name=deal.name,
        pipeline=deal.pipeline_id,
        stage=deal.stage,
        probability=deal.probability,
        value_minor=deal.value_minor,
        currency=deal.currency,
        recurring_minor=deal.recurring_minor,
        annual_minor=deal.annual_minor,
        expected_close_on=deal.expected_close_on and deal.expected_close_on.isoformat(),
        contract_starts_on=deal.contract_starts_on and deal.contract_starts_on.isoformat(),
        contract_ends_on=deal.contract_ends_on and deal.contract_ends_on.isoformat(),
        products=[line.product for line in deal.lines],
        roles=[one.role for one in deal.stakeholders],
        rep_id=deal.rep_id,
        renewal_of=deal.renewal_of,
        notes=dict(deal.notes) or None,
    )


def reads_lead(pipeline: Pipeline) -> bool:
    """Whether any stage or the hand-off asks about the lead."""
    required = [*(name for stage in pipeline.stages for name in stage.required)]
    required += pipeline.handoff.required if pipeline.handoff is not None else []
    return any(name.startswith("lead.") or name == "use_case" for name in required) or any(
        one.when.reads("lead") for stage in pipeline.stages for one in stage.exit
    )


def gaps_of_move(
    before: Deal | None, after: Deal, lead: Mapping[str, Any], pipeline: Pipeline, order: Sequence[str]
) -> list[Gap]:
    """What a deal misses to get from where it stood to where it is to stand; a new deal comes from the first stage.

    `order` are the stages of the version by which it came where it stood, where that stage is gone.
    """
    start: str | None = pipeline.first
    if before is not None and before.pipeline_id == pipeline.pipeline_id:
        start = pipeline.stands_for(before.stage, order)
    way = pipeline.onwards(start, after.stage if after.status == "open" else None)
    left = [stage for stage in way if after.status != "open" or stage.stage_id != after.stage]
    entered = [stage for stage in way if before is None or stage.stage_id != before.stage]
    may_force = bool(way) and all(stage.force for stage in left or way)
    values = {"deal": values_of(after), "lead": lead}
    return [
        *_missing_criteria(left, values, "/stage" if after.status == "open" else "/won", may_force=may_force),
        *(
            Gap(gap.name, gap.pointer, f"{gap.detail} in stage {stage.stage_id}", may_force)
            for stage in entered
            for gap in gaps_in(stage.required, after, lead)
        ),
    ]


def gaps_in(required: Iterable[str], deal: Deal, lead: Mapping[str, Any]) -> list[Gap]:
    """Those of these fields that a deal and its lead do not have."""
    return [
        Gap(name, "/" + PLACES.get(name, name).replace(".", "/"), "is required")
        for name in required
        if not _is_there(name, deal, lead)
    ]


def _missing_criteria(
    left: Sequence[Stage], values: Mapping[str, Any], pointer: str, *, may_force: bool
) -> Iterable[Gap]:
    for stage in left:
        for one in stage.exit:
            holds, why = one.when.holds(values)
            if not holds:
                detail = f"{stage.stage_id} is left when {one.criterion_id} holds: {one.when.source} ({why})"
                yield Gap(one.criterion_id, pointer, detail, may_force)


def _is_there(name: str, deal: Deal, lead: Mapping[str, Any]) -> bool:
    kind, _, rest = name.partition(".")
    match kind:
        case "notes":
            return bool(deal.notes.get(rest))
        case "lead":
            return lead.get(rest) not in (None, "")
        case "stakeholders":
            return any(not rest or one.role == rest for one in deal.stakeholders)
        case "use_case":
            return bool(deal.notes.get("use_case") or lead.get("use_case"))
        case _:
            return bool(getattr(deal, kind))
