"""All that is known of a customer who is handed over, each part with its source; what other services hold is named."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from services.routing.assignments import queries as assignments
from services.routing.deals import queries as deals
from services.routing.deals.domain import Deal
from services.routing.deals.outputs import DealOut, history_of
from services.routing.deals.story import steps_of
from services.routing.handoffs.domain import Handoff, Task
from services.routing.parts import Parts
from services.routing.people.domain import Person
from services.routing.people.handlers import people
from services.routing.reps.queries import rep_row
from shared.db import Connection, agreed_now
from shared.ids import LeadId, RepId

PartName = Literal[
    "profile", "accounts", "scores", "deal", "deal_history", "stakeholders", "assignments", "journey", "messages"
]


class Part(BaseModel):
    """One part of the packet: where it comes from, and what it says; null where it is to be read there."""

    part: PartName
    source: str
    content: Any


class TaskOut(BaseModel):
    """Something to be done for a new customer."""

    task_id: str
    title: str
    due_at: datetime
    completed_at: datetime | None
    completed_by: str | None
    overdue: bool


class OwnerOut(BaseModel):
    """Who has the customer, and why; without a rep nobody could be found yet."""

    rep_id: str | None
    name: str | None = None
    email: str | None = None
    why: str
    queue: str | None
    strategy: str | None


class HandoffOut(BaseModel):
    """A hand-off to customer success: `gaps` are what it should tell and does not."""

    deal_id: str
    lead_id: str
    status: Literal["open", "done", "withdrawn"]
    revision: int
    won_at: datetime
    opened_at: datetime
    owner: OwnerOut
    tasks: list[TaskOut]


class HandoffWithPacket(HandoffOut):
    """A hand-off with all that is known of the customer."""

    gaps: list[str]
    packet: list[Part]


def handoff_out(handoff: Handoff, tasks: Sequence[Task], now: datetime) -> HandoffOut:
    """A hand-off as it is listed."""
    withdrawn = handoff.withdrawn_at is not None
    return HandoffOut(
        deal_id=handoff.deal_id,
        lead_id=handoff.lead_id,
        status=handoff.status(tasks),
        revision=handoff.revision,
        won_at=handoff.won_at,
        opened_at=handoff.opened_at,
        owner=OwnerOut(rep_id=handoff.owner_id, why=handoff.owner_why, queue=handoff.queue, strategy=handoff.strategy),
        tasks=[
            TaskOut(
                task_id=task.task_id,
                title=task.title,
                due_at=task.due_at,
                completed_at=task.completed_at,
                completed_by=task.completed_by,
                overdue=not withdrawn and task.overdue(now),
            )
            for task in tasks
        ],
    )


async def with_packet(
    connection: Connection, parts: Parts, shown: HandoffOut, handoff: Handoff, deal: Deal
) -> HandoffWithPacket:
    """The hand-off with its packet: nothing is told that is not held here, and where the rest is."""
    everyone = [deal.lead_id, *(LeadId(one.lead_id) for one in deal.stakeholders)]
    known = await people(connection, [(lead_id, None) for lead_id in everyone], parts.runtime.keys)
    who, others = known[0], known[1:]
    lead = who.values().get("lead", {})
    owner = shown.owner
    if handoff.owner_id is not None and (row := await rep_row(connection, RepId(handoff.owner_id))) is not None:
        owner = owner.model_copy(update={"name": row["name"], "email": row["email"]})
    return HandoffWithPacket(
        **shown.model_dump(exclude={"owner"}),
        owner=owner,
        gaps=list(handoff.gaps(deal, lead)),
        packet=[
            *_of_person(who, lead),
            *await _of_deal(connection, parts, deal, others),
            await _of_work(connection, who),
            Part(part="journey", source=f"/attribution/v1/leads/{deal.lead_id}/journey", content=None),
            Part(part="messages", source=f"/nurture/v1/leads/{deal.lead_id}/messages", content=None),
        ],
    )


def _of_person(who: Person, lead: Any) -> list[Part]:
    values = who.values()
    companies = [
        {name: getattr(one, name) for name in ("account_id", "name", "domain", "industry", "country", "owner_id")}
        for one in who.companies
    ]
    scores = {"stage": values.get("stage"), **values.get("score", {})}
    return [
        Part(part="profile", source=f"/capture/v1/leads/{who.person_id}", content=lead),
        Part(part="accounts", source="/capture/v1/accounts", content=companies),
        Part(part="scores", source=f"/scoring/v1/leads/{who.person_id}", content=scores),
    ]


async def _of_deal(connection: Connection, parts: Parts, deal: Deal, others: Sequence[Person]) -> list[Part]:
    source = f"/routing/v1/deals/{deal.deal_id}"
    now = await agreed_now(connection, parts.runtime.clock)
    story = history_of(deal, steps_of(deal, await deals.entries(connection, deal)), now)
    return [
        Part(part="deal", source=source, content=DealOut.of(deal).model_dump(mode="json")),
        Part(part="deal_history", source=f"{source}/history", content=story.model_dump(mode="json")),
        Part(
            part="stakeholders",
            source=source,
            content=[
                {"role": one.role, "lead_id": one.lead_id, "profile": who.values().get("lead", {})}
                for one, who in zip(deal.stakeholders, others, strict=True)
            ],
        ),
    ]


async def _of_work(connection: Connection, who: Person) -> Part:
    worked = sorted(await assignments.of_persons(connection, who.ids), key=lambda one: one.assigned_at)
    content = [
        {
            "rep_id": one.rep_id,
            "state": one.state,
            "assigned_at": one.assigned_at.isoformat(),
            "ended_at": one.ended_at and one.ended_at.isoformat(),
            "end_reason": one.end_reason,
        }
        for one in worked
    ]
    return Part(part="assignments", source=f"/routing/v1/assignments?lead_id={who.person_id}", content=content)
