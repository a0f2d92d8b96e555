"""A customer handed over: to whom, with what missing, and what is to be done by when. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from services.routing.deals.domain import Deal
from services.routing.deals.gates import gaps_in
from services.routing.deals.pipeline import HandoffShape
from shared.events import HandoffTaskChanged, LeadHandedOff
from shared.ids import DealId, EventId, LeadId, RepId, derived_id

Status = Literal["open", "done", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has the customer, or nobody, and why; `queue` and `strategy` where a queue decided."""

    rep_id: RepId | None
    why: str
    queue: str | None = None
    strategy: str | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Something to be done for a new customer."""

    task_id: str
    title: str
    due_at: datetime
    completed_at: datetime | None = None
    completed_by: str | None = None

    def overdue(self, now: datetime) -> bool:
        """Whether it should be done by now."""
        return self.completed_at is None and self.due_at < now


@dataclass(frozen=True, slots=True)
class Handoff:
    """A won deal handed to customer success. `required` is what it should tell; reopening the deal withdraws it.

    `first_won_at` is when it was won by what was told first, where that was put right since.
    """

    deal_id: DealId
    lead_id: LeadId
    revision: int
    pipeline_id: str
    required: tuple[str, ...]
    owner_id: RepId | None
    owner_why: str
    queue: str | None
    strategy: str | None
    won_at: datetime
    opened_at: datetime
    withdrawn_at: datetime | None = None
    retry_at: datetime | None = None
    first_won_at: datetime | None = None

    def status(self, tasks: Sequence[Task]) -> Status:
        """How far it is: done when every task is."""
        if self.withdrawn_at is not None:
            return "withdrawn"
        return "done" if all(task.completed_at is not None for task in tasks) else "open"

    def gaps(self, deal: Deal, lead: Mapping[str, Any]) -> tuple[str, ...]:
        """What it should tell and does not."""
        return tuple(gap.name for gap in gaps_in(self.required, deal, lead))


def handoff_of(deal: Deal, shape: HandoffShape, owner: Owner, revision: int, now: datetime) -> Handoff:
    """The hand-off of a deal that was just won."""
    return Handoff(
        deal_id=deal.deal_id,
        lead_id=deal.lead_id,
        revision=revision,
        pipeline_id=deal.pipeline_id,
        required=tuple(shape.required),
        owner_id=owner.rep_id,
        owner_why=owner.why,
        queue=owner.queue,
        strategy=owner.strategy,
        won_at=deal.closed_at or now,
        opened_at=now,
        retry_at=owner.retry_at,
    )


def owned(handoff: Handoff, owner: Owner) -> Handoff:
    """The hand-off when somebody else has the customer, or nobody still."""
    return replace(
        handoff,
        revision=handoff.revision + 1,
        owner_id=owner.rep_id,
        owner_why=owner.why,
        queue=owner.queue,
        strategy=owner.strategy,
        retry_at=owner.retry_at,
    )


def tasks_of(shape: HandoffShape, won_at: datetime) -> list[Task]:
    """What is to be done, with the moments by when."""
    return [
        Task(task.id, task.title, won_at + timedelta(hours=task.due.hours, days=task.due.days)) for task in shape.tasks
    ]


def handed_off(handoff: Handoff, gaps: Sequence[str], tasks: Sequence[Task], now: datetime) -> LeadHandedOff:
    """The fact that tells how the hand-off stands."""
    return LeadHandedOff(
        event_id=EventId(derived_id("handed-off", handoff.deal_id, str(handoff.revision))),
        lead_id=handoff.lead_id,
        occurred_at=now,
        received_at=now,
        deal_id=handoff.deal_id,
        revision=handoff.revision,
        owner_id=handoff.owner_id,
        queue=handoff.queue,
        gaps=tuple(gaps),
        won_at=handoff.won_at,
        first_won_at=handoff.first_won_at,
        due_at=max((task.due_at for task in tasks), default=None),
        withdrawn=handoff.withdrawn_at is not None,
    )


def task_changed(
    handoff: Handoff, task_id: str, revision: int, completed_at: datetime | None, now: datetime
) -> HandoffTaskChanged:
    """The fact that tells how a task stands."""
    return HandoffTaskChanged(
        event_id=EventId(derived_id("handoff-task", handoff.deal_id, task_id, str(revision))),
        lead_id=handoff.lead_id,
        occurred_at=now,
        received_at=now,
        deal_id=handoff.deal_id,
        task_id=task_id,
        revision=revision,
        completed_at=completed_at,
    )
