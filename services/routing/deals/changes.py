"""What somebody tells of a deal, as the change that it is; refused where it cannot be one. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from services.routing.deals.domain import Deal, amounts
from services.routing.deals.inputs import DealChange, PastChange, Reopening, Terms
from services.routing.deals.lines import Line
from services.routing.deals.pipeline import LOST, OTHER, WON
from services.routing.deals.stages import Passed, Pipeline, chance
from services.routing.deals.story import Change, Entry, Step, standing_at
from services.routing.errors import DealClosed, NotClosed
from shared.errors import FieldError, Invalid

PLAIN = ("expected_close_on", "contract_starts_on", "contract_ends_on", "rep_id")
LISTS = ("lines", "stakeholders")
STANDING = ("stage", "probability", "pipeline_id", "pipeline_version")


@dataclass(frozen=True, slots=True)
class Written:
    """The texts of a deal after a change: name, why it was lost, notes by kind; `remark` is why it was changed so."""

    name: str
    reason: str | None
    notes: Mapping[str, str] = field(default_factory=dict)
    remark: str | None = None

    def on(self, deal: Deal, number: int) -> Deal:
        """The deal with these texts; `number` is that of the change."""
        remarks = dict(deal.remarks) | ({str(number): self.remark} if self.remark else {})
        return replace(deal, name=self.name, reason=self.reason, notes=dict(self.notes), remarks=remarks)


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells a change, and when."""

    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Stages:
    """The pipeline a deal is in, with what was measured of it."""

    pipeline: Pipeline
    measured: Mapping[str, Passed]

    def entry_to(self, stage_id: str, pointer: str = "/stage") -> dict[str, Any]:
        """What a change sets that brings a deal into a stage. Raises Invalid where there is none."""
        stage = self.pipeline.stage(stage_id)
        if stage is None:
            known = ", ".join(self.pipeline.probabilities)
            ends = "; a deal ends with won or lost" if stage_id in (WON, LOST) else ""
            raise Invalid(
                f"look at {pointer}", [FieldError(pointer, f"there is no stage {stage_id}; there are {known}{ends}")]
            )
        return {
            "stage": stage_id,
            "probability": chance(stage, self.measured),
            "pipeline_id": self.pipeline.pipeline_id,
            "pipeline_version": self.pipeline.version,
        }


def opening_of(deal: Deal, stages: Stages, by: str | None) -> Entry:
    """The change that opens a deal. Raises Invalid for a stage that the pipeline does not have."""
    told = {name: getattr(deal, name) for name in (*PLAIN, *LISTS, "value_minor", "recurring_minor")}
    return Entry(1, deal.opened_at, Change(**told, **stages.entry_to(deal.stage)), by)


def change_of(
    steps: Sequence[Step], deal: Deal, told: DealChange, stages: Stages, teller: Teller
) -> tuple[Entry, Written]:
    """A change as somebody told it, and the texts after it.

    Raises DealClosed for one that would reopen a closed deal, Invalid for one that means nothing. What happened before
    a deal was closed may still be told.
    """
    at = told.occurred_at or teller.now
    then = standing_at(steps, at)
    sets = {**_terms(told), **_amounts(told, told.value_minor, then)}
    if told.stage is not None or told.pipeline is not None:
        if then.status != "open":
            raise _closed(then)
        stage_id = told.stage or stages.pipeline.first
        if (stage_id, stages.pipeline.pipeline_id) != (then.stage, then.pipeline_id):
            sets |= stages.entry_to(stage_id)
        elif told.occurred_at is not None:  # of the time before it, other moves may be told later
            sets |= {name: getattr(then, name) for name in STANDING}
    elif told.won or told.lost:
        sets |= _end(deal, then, told, stages.pipeline)
    written = _written(deal, told)
    texts = [name for name in ("name", "reason", "notes") if getattr(written, name) != getattr(deal, name)]
    if texts:
        sets["texts"] = tuple(texts)
    return Entry(deal.revision + 1, at, Change(**sets), teller.by), written


def reopening_of(
    steps: Sequence[Step], deal: Deal, told: Reopening, stages: Stages, teller: Teller
) -> tuple[Entry, Written]:
    """A closed deal is open again. Raises NotClosed, Invalid."""
    if deal.status == "open" or deal.closed_at is None:
        raise NotClosed("the deal is open; there is nothing to reopen")
    at = told.occurred_at or teller.now
    if at < deal.closed_at:
        detail = f"lies before {deal.closed_at.isoformat()}, when the deal was closed"
        raise Invalid("look at /occurred_at", [FieldError("/occurred_at", detail)])
    stood = next((step.deal.stage for step in reversed(steps) if step.deal.status == "open"), "")
    stage = told.stage or (stood if stages.pipeline.stage(stood) is not None else stages.pipeline.first)
    change = Change(reopened=True, texts=("reason",), **stages.entry_to(stage))
    return Entry(deal.revision + 1, at, change, teller.by), Written(deal.name, None, deal.notes, told.reason)


def past_entries(
    told: Sequence[PastChange], stages: Stages, first: int, by: str, lines: Sequence[Line] = ()
) -> list[Entry]:
    """The changes of an imported past, numbered from `first` on in order of time. Raises Invalid with the place.

    `lines` are those with which the deal was opened.
    """
    entries: list[Entry] = []
    places = sorted(range(len(told)), key=lambda index: (told[index].occurred_at, index))
    for number, index in enumerate(places, start=first):
        change = told[index]
        if change.lines is None and lines and (change.value_minor, change.recurring_minor) != (None, None):
            name = "recurring_minor" if change.value_minor is None else "value_minor"
            pointer = f"/changes/{index}/{name}"
            raise Invalid(f"look at {pointer}", [FieldError(pointer, "follows from the lines")])
        lines = lines if change.lines is None else change.lines
        sets = {**_terms(change), **_amounts(change, change.value_minor, None)}
        if change.stage is not None:
            sets |= stages.entry_to(change.stage, f"/changes/{index}/stage")
        for name in ("won", "lost", "reopened"):
            if getattr(change, name):
                sets[name] = True
        if change.lost:
            sets["lost_reason"] = _category(change.lost_reason, None, stages.pipeline, f"/changes/{index}/lost_reason")
        entries.append(Entry(number, change.occurred_at, Change(**sets), by))
    return entries


def new_entries(entries: Sequence[Entry], known: Sequence[Entry], first: int) -> list[Entry]:
    """Those that are not known yet, by their time and what they say, numbered from `first` on.

    The same change twice is one. Probabilities and versions are those of the day of the import, so they tell nothing.
    """
    seen = {_identity(entry) for entry in known}
    fresh: list[Entry] = []
    for entry in entries:
        if (name := _identity(entry)) not in seen:
            seen.add(name)
            fresh.append(replace(entry, number=first + len(fresh)))
    return fresh


def _identity(entry: Entry) -> tuple[datetime, str]:
    told = entry.change.as_json()
    for name in ("probability", "pipeline_version", "texts", "forced"):
        told.pop(name, None)
    return entry.at, repr(sorted(told.items()))


def _terms(told: Terms) -> dict[str, Any]:
    sets = {name: getattr(told, name) for name in (*PLAIN, *LISTS) if name in told.model_fields_set}
    return sets | {name: () for name in LISTS if name in sets and sets[name] is None}


def _amounts(told: Terms, value_minor: int | None, deal: Deal | None) -> dict[str, Any]:
    """What a change sets of the amounts; lines set both. Raises Invalid."""
    if deal is None and not told.lines:
        sets = {"value_minor": value_minor, "recurring_minor": told.recurring_minor}
        return {name: value for name, value in sets.items() if value is not None}
    recurs_told = "recurring_minor" in told.model_fields_set
    if told.lines is None and value_minor is None and not recurs_told:
        return {}
    value, recurring = amounts(told, value_minor, deal)
    sets = {"value_minor": value, "recurring_minor": recurring}
    if told.lines:
        return sets
    told_ones = {"value_minor": value_minor is not None, "recurring_minor": recurs_told}
    return {name: value for name, value in sets.items() if told_ones[name]}


def _end(deal: Deal, then: Deal, told: DealChange, pipeline: Pipeline) -> dict[str, Any]:
    status = "won" if told.won else "lost"
    sets: dict[str, Any] = {status: True}
    if deal.status not in ("open", status):
        raise _closed(deal)
    if told.lost:
        if told.reason is None and told.lost_reason in (None, OTHER):
            raise Invalid("look at /reason", [FieldError("/reason", "is required when a deal is lost")])
        sets["lost_reason"] = _category(told.lost_reason, told.reason, pipeline, "/lost_reason")
    if deal.status == status:
        corrects = {"corrects": True} if told.occurred_at not in (None, deal.closed_at) else {}
        return sets | corrects if corrects or told.lost else {}
    if then.status != "open":
        raise _closed(then)
    return sets


def _category(reason_id: str | None, reason: str | None, pipeline: Pipeline, pointer: str) -> str | None:
    """Which of the pipeline's reasons it is; what is said in words of none of them is `other`, if there is that."""
    if reason_id is not None:
        if reason_id not in pipeline.lost_reasons:
            detail = f"there is no reason {reason_id}; there are {', '.join(pipeline.lost_reasons)}"
            raise Invalid(f"look at {pointer}", [FieldError(pointer, detail)])
        return reason_id
    named = "_".join((reason or "").casefold().split())
    return named if named in pipeline.lost_reasons else OTHER if OTHER in pipeline.lost_reasons else None


def _written(deal: Deal, told: DealChange) -> Written:
    notes: dict[str, str | None] = dict(deal.notes)
    if told.notes is not None:
        for name in told.notes.model_fields_set:
            notes[name] = getattr(told.notes, name)
    return Written(
        name=deal.name if told.name is None else told.name,
        reason=(told.reason or told.lost_reason) if told.lost else deal.reason,
        notes={name: text for name, text in notes.items() if text is not None},
        remark=told.reason,
    )


def _closed(deal: Deal) -> DealClosed:
    return DealClosed(
        f"the deal was {deal.status} on {deal.closed_at:%Y-%m-%d}; reopen it with a reason, or open a new one"
    )
