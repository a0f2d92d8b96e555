"""A deal as it stands, and what is told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from services.routing.deals.inputs import DealInput, Stakeholder, Terms
from services.routing.deals.lines import MOST_MINOR, Line, amounts_of, annual_minor
from services.routing.deals.stages import Pipeline
from shared.errors import FieldError, Invalid
from shared.events import ConversionRecorded, DealChanged, DealLine, DealStakeholder
from shared.ids import ConversionId, DealId, EventId, LeadId, RepId, derived_id, new_id

ORIGIN = "routing"
DEAL_WON = "deal_won"
Status = Literal["open", "won", "lost"]


@dataclass(frozen=True, slots=True)
class Deal:
    """A possible sale. `changed_at` is when the last change occurred, `closed_at` when it was won or lost.

    `passed` are the stages it was in. `notes` are what is written by kind, `remarks` the reasons of changes by their
    revision. As it is stored and told, `name`, `reason`, `notes` and `remarks` are in the block `sealed`.
    """

    deal_id: DealId
    lead_id: LeadId
    revision: int
    external_id: str | None
    name: str
    status: Status
    stage: str
    probability: int
    value_minor: int
    currency: str
    recurring_minor: int | None
    rep_id: RepId | None
    pipeline_version: int
    opened_at: datetime
    changed_at: datetime
    closed_at: datetime | None = None
    reason: str | None = None
    conversion_id: ConversionId | None = None
    sealed: str | None = None
    pipeline_id: str = "default"
    expected_close_on: date | None = None
    contract_starts_on: date | None = None
    contract_ends_on: date | None = None
    lines: tuple[Line, ...] = ()
    stakeholders: tuple[Stakeholder, ...] = ()
    renewal_of: DealId | None = None
    lost_reason: str | None = None
    passed: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def annual_minor(self) -> int | None:
        """What it brings every year (ARR), in whole minor units."""
        if any(line.recurring for line in self.lines):
            return annual_minor(self.lines)
        return None if self.recurring_minor is None else 12 * self.recurring_minor


def deal_id_of(external_id: str | None) -> DealId:
    """The id follows from the caller's own, so that the same deal told twice is one."""
    return DealId(derived_id("deal", external_id) if external_id is not None else new_id())


def amounts(terms: Terms, value_minor: int | None, before: Deal | None = None) -> tuple[int, int | None]:
    """Value and monthly recurring amount that follow from what is told. Raises Invalid.

    With lines both are computed, so that neither may be told besides.
    """
    lines = terms.lines if terms.lines is not None else before.lines if before is not None else ()
    if lines:
        value, recurring = amounts_of(lines)
        takes_away = terms.lines is None and recurring is not None and "recurring_minor" in terms.model_fields_set
        told = {
            "value_minor": value_minor is not None,
            "recurring_minor": takes_away or terms.recurring_minor is not None,
        }
        if faults := [FieldError(f"/{name}", "follows from the lines") for name, is_told in told.items() if is_told]:
            raise Invalid(f"look at {faults[0].pointer}", faults)
        if value > MOST_MINOR or annual_minor(lines) > MOST_MINOR:
            raise Invalid("look at /lines", [FieldError("/lines", f"come to more than {MOST_MINOR}")])
        return value, recurring
    if value_minor is None and before is None:
        raise Invalid("look at /value_minor", [FieldError("/value_minor", "is required where there are no lines")])
    known = before.value_minor if before is not None else 0
    recurring = (
        before.recurring_minor if before is not None and "recurring_minor" not in terms.model_fields_set else None
    )
    return (
        known if value_minor is None else value_minor,
        terms.recurring_minor if terms.recurring_minor is not None else recurring,
    )


def opened_deal(deal_id: DealId, told: DealInput, pipeline: Pipeline, rep_id: RepId | None, now: datetime) -> Deal:
    """A new deal, in no stage yet. Raises Invalid."""
    at = told.occurred_at or now
    value_minor, recurring_minor = amounts(told, told.value_minor)
    return Deal(
        deal_id=deal_id,
        lead_id=told.lead,
        revision=1,
        external_id=told.external_id,
        name=told.name,
        status="open",
        stage=told.stage or pipeline.first,
        probability=0,
        value_minor=value_minor,
        currency=told.currency,
        recurring_minor=recurring_minor,
        rep_id=rep_id,
        pipeline_version=pipeline.version,
        opened_at=at,
        changed_at=at,
        pipeline_id=pipeline.pipeline_id,
        expected_close_on=told.expected_close_on,
        contract_starts_on=told.contract_starts_on,
        contract_ends_on=told.contract_ends_on,
        lines=told.lines or (),
        stakeholders=told.stakeholders or (),
        renewal_of=DealId(told.renewal_of) if told.renewal_of is not None else None,
        notes=told.notes.model_dump(exclude_none=True) if told.notes is not None else {},
    )


def deal_changed(deal: Deal, pipeline: Pipeline, teams: Sequence[str], now: datetime, begins: int = 0) -> DealChanged:
    """The fact that tells how the deal stands, with the teams of its rep."""
    return DealChanged(
        event_id=EventId(derived_id("deal-changed", deal.deal_id, str(deal.revision))),
        lead_id=deal.lead_id,
        occurred_at=deal.changed_at,
        received_at=now,
        deal_id=deal.deal_id,
        revision=deal.revision,
        external_id=deal.external_id,
        name=deal.name,
        status=deal.status,
        stage=deal.stage,
        probability=deal.probability,
        value_minor=deal.value_minor,
        currency=deal.currency,
        recurring_minor=deal.recurring_minor,
        rep_id=deal.rep_id,
        opened_at=deal.opened_at,
        closed_at=deal.closed_at,
        reason=deal.reason,
        conversion_id=deal.conversion_id,
        teams=tuple(teams),
        pipeline_stages=tuple(pipeline.probabilities),
        personal=deal.sealed,
        begins=begins,
        pipeline_id=deal.pipeline_id,
        pipeline_version=deal.pipeline_version,
        expected_close_on=deal.expected_close_on,
        contract_starts_on=deal.contract_starts_on,
        contract_ends_on=deal.contract_ends_on,
        lines=tuple(DealLine.model_validate(line.model_dump()) for line in deal.lines),
        stakeholders=tuple(DealStakeholder.model_validate(one.model_dump()) for one in deal.stakeholders),
        renewal_of=deal.renewal_of,
        lost_reason=deal.lost_reason,
    )


def conversion_id_of(deal_id: DealId) -> ConversionId:
    """The id of the money that a deal made, whenever it is won."""
    return ConversionId(derived_id("conversion", ORIGIN, deal_id))


def conversion_of(before: Deal | None, deal: Deal, now: datetime) -> ConversionRecorded | None:
    """The money that a change tells: what a won deal made, corrected, or taken back when it is won no more.

    Always under the same id, so that telling it again corrects it. None where nothing was earned that is not told.
    """
    if _earned(before) == _earned(deal):
        return None
    won = deal.conversion_id is not None
    closed_at = deal.closed_at if won or before is None else before.closed_at
    assert closed_at is not None  # earned before, or now
    return ConversionRecorded(
        event_id=EventId(derived_id("deal-conversion", deal.deal_id, str(deal.revision))),
        lead_id=deal.lead_id,
        occurred_at=closed_at,
        received_at=now,
        origin=ORIGIN,
        conversion_id=conversion_id_of(deal.deal_id),
        external_id=deal.deal_id,
        type=DEAL_WON,
        value_minor=deal.value_minor if won else 0,
        currency=deal.currency,
        deal_id=deal.deal_id,
        withdrawn=not won,
    )


def _earned(deal: Deal | None) -> tuple[int, datetime | None] | None:
    return (deal.value_minor, deal.closed_at) if deal is not None and deal.conversion_id is not None else None
