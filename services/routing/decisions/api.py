"""Decisions over HTTP: taken again, explained, tried on one lead."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, model_validator

from services.routing.assignments.domain import Assignment, Case, Choice, Nobody
from services.routing.decisions import handlers
from services.routing.decisions.imagined import imagined_inputs
from services.routing.decisions.words import Reason, named_first, reasons
from services.routing.errors import NoSuchRep, NotReplayable
from services.routing.params import PathId, QueryId, no_such_lead
from services.routing.parts import Parts, rules_of
from services.routing.people.domain import Person
from services.routing.people.handlers import person
from services.routing.people.queries import is_known
from services.routing.reps.domain import Rep
from services.routing.reps.queries import reps_of
from services.routing.rules.domain import Rules
from shared.db import Connection, agreed_now
from shared.emails import parse_email
from shared.errors import FieldError, Invalid
from shared.identity import find_by_email
from shared.ids import AssignmentId, LeadId, RepId
from shared.rules import sent_within
from shared.web import Endpoints, Input, Instant, requires


class TrialOut(BaseModel):
    """A rule that was tried."""

    rule_id: str
    matched: bool
    why: str


class DifferenceOut(BaseModel):
    """What came out otherwise than it did then."""

    what: str
    was: Any
    now: Any


class ReplayOut(BaseModel):
    """A decision taken again from what it saw: the lead, the pool, the books, the rules of that version, the time.

    `same` says that rep, queue, strategy, deadlines and trace are those of the assignment; else `differences` names
    what this version of the code decides otherwise.
    """

    assignment_id: str
    same: bool
    rep_id: str | None
    queue: str | None
    strategy: str | None
    trace: list[TrialOut]
    differences: list[DifferenceOut]
    rules_version: int
    at: datetime
    reps: int


class StepOut(BaseModel):
    """What one rule meant for a rep."""

    rule_id: str
    why: str


class ExplainOut(BaseModel):
    """Why a rep got a lead, or did not; `steps` only where what the decision saw is known."""

    assignment_id: str
    lead_id: str
    rep_id: str
    name: str
    chosen: bool
    why: str
    steps: list[StepOut]
    given_to: str
    rules_version: int
    at: datetime


class RepReasonOut(BaseModel):
    """Why a rep would get the lead, or would not."""

    rep_id: str
    name: str
    chosen: bool
    why: str
    steps: list[StepOut]

    @classmethod
    def of(cls, reason: Reason) -> "RepReasonOut":
        """From the reason as found."""
        return cls(
            rep_id=reason.rep.rep_id,
            name=reason.rep.name,
            chosen=reason.chosen,
            why=reason.why,
            steps=[StepOut(rule_id=step.rule_id, why=step.why) for step in reason.steps],
        )


class OutcomeOut(BaseModel):
    """Who gets the lead, by which rule, until when to be accepted and touched."""

    rep_id: str
    name: str
    queue: str
    strategy: str
    rule_id: str
    why: str
    due_at: datetime | None
    touch_due_at: datetime | None

    @classmethod
    def of(cls, choice: Choice, at: datetime) -> "OutcomeOut":
        """From a choice taken at that time."""
        return cls(
            rep_id=choice.rep.rep_id,
            name=choice.rep.name,
            queue=choice.queue,
            strategy=choice.strategy,
            rule_id=choice.trace[-1].rule_id,
            why=choice.trace[-1].why,
            due_at=choice.due_at(at),
            touch_due_at=choice.touch_due_at(at),
        )


class PreviewOut(BaseModel):
    """What the rules would make of the lead. Where they find nobody, `held` says why; where `route_when` does not hold
    it would not be looked at, as `not_routed` says. The reps stand with the leads that they hold now.
    """

    rules_version: int | None
    at: datetime
    rep_id: str | None
    outcome: OutcomeOut | None
    held: str | None
    not_routed: str | None
    trace: list[TrialOut]
    reps: list[RepReasonOut]
    alternatives: list[OutcomeOut]


class PreviewIn(Input):
    """A lead as rules read it, with its stage, score and deal, or one that is known; and rules, if not the active ones.

    `at` is the time to decide at, else now.
    """

    lead: dict[str, Any] | None = Field(default=None, examples=[{"country": "AT", "company": "Acme"}])
    stage: Annotated[str, Field(max_length=40)] = "mql"
    score: dict[str, Any] | None = None
    deal: dict[str, Any] | None = None
    lead_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")] | None = None
    email: Annotated[str, Field(max_length=320)] | None = None
    document: dict[str, Any] | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    at: Instant | None = None

    @model_validator(mode="after")
    def _one_lead_and_rules_once(self) -> "PreviewIn":
        if sum(each is not None for each in (self.lead, self.lead_id, self.email)) != 1:
            raise ValueError("send one of lead, lead_id and email")
        if self.document is not None and self.version is not None:
            raise ValueError("send either document or version, or neither for the active rules")
        if self.lead is None and {"stage", "score", "deal"} & self.model_fields_set:
            raise ValueError("stage, score and deal are those of an imagined lead; a known one has its own")
        return self


def router(parts: Parts) -> APIRouter:
    """Replays, explanations and previews."""
    routes = Endpoints(prefix="/v1", tags=["decisions"])
    runtime = parts.runtime
    reading = [Depends(requires("routing:read"))]

    @routes.post("/assignments/{assignment_id}:replay", dependencies=reading)
    async def replay(assignment_id: PathId) -> ReplayOut:
        """Take a decision again, from what it saw then. Nothing changes."""
        async with runtime.database.reading() as connection:
            again = await handlers.replayed(connection, parts, AssignmentId(assignment_id))
        choice = again.decision if isinstance(again.decision, Choice) else None
        return ReplayOut(
            assignment_id=assignment_id,
            same=not again.differences,
            rep_id=choice.rep.rep_id if choice is not None else None,
            queue=choice.queue if choice is not None else None,
            strategy=choice.strategy if choice is not None else None,
            trace=_trace(again.decision),
            differences=[DifferenceOut(**asdict(difference)) for difference in again.differences],
            rules_version=again.scene.rules.version,
            at=again.scene.case.at,
            reps=len(again.scene.pool.reps),
        )

    @routes.get("/assignments/{assignment_id}/explain", dependencies=reading)
    async def explain(assignment_id: PathId, rep_id: QueryId = None) -> ExplainOut:
        """Why a rep got this lead, or did not: the one who got it, when none is named."""
        async with runtime.database.reading() as connection:
            assignment = await handlers.assignment_named(connection, AssignmentId(assignment_id))
            whose = await _reps(connection, [assignment.rep_id, RepId(rep_id or assignment.rep_id)])
            given_to, asked = whose[0], whose[-1]
            try:
                again = await handlers.replayed(connection, parts, AssignmentId(assignment_id))
            except NotReplayable as exc:
                return _explained(assignment, asked, given_to, _by_the_trace(assignment, asked, given_to, exc))
        scene = again.scene
        found = reasons(scene.case, scene.rules, scene.pool, again.decision)
        own = next((one for one in found if one.rep.rep_id == asked.rep_id), None)
        return _explained(assignment, asked, given_to, own or "was not among the active reps then")

    @routes.post("/rules:preview", dependencies=reading)
    async def preview(told: PreviewIn) -> PreviewOut:
        """Try rules on one lead: the rep, every rule that is tried, and why not each of the others. Nothing changes."""
        imagined = imagined_inputs(_imagined(told)) if told.lead is not None else None
        async with runtime.database.reading() as connection:
            at = told.at or await agreed_now(connection, runtime.clock)
            rules = await _rules(connection, parts, told)
            pool = await handlers.pool_now(connection, at)
            if imagined is not None:
                nobody = Person(LeadId(""), (), imagined["lead"])
                case = await handlers.case_imagined(connection, imagined, at, nobody.person_id, nobody.company)
            else:
                case = await _known(connection, parts, told, at)
        found = handlers.preview(case, rules, pool)
        choice = found.decision if isinstance(found.decision, Choice) else None
        return PreviewOut(
            rules_version=rules.version or None,
            at=at,
            rep_id=choice.rep.rep_id if choice is not None else None,
            outcome=OutcomeOut.of(choice, at) if choice is not None else None,
            held=found.decision.reason if isinstance(found.decision, Nobody) else None,
            not_routed=found.not_routed,
            trace=_trace(found.decision),
            reps=[RepReasonOut.of(reason) for reason in named_first(found.reasons)],
            alternatives=[OutcomeOut.of(other, at) for other in found.alternatives],
        )

    return routes


def _trace(decision: Choice | Nobody) -> list[TrialOut]:
    return [TrialOut.model_validate(trial.as_json()) for trial in decision.trace]


async def _reps(connection: Connection, rep_ids: Sequence[RepId]) -> list[Rep]:
    found = await reps_of(connection, sorted(set(rep_ids)))
    for rep_id in rep_ids:
        if rep_id not in found:
            raise NoSuchRep(f"there is no rep {rep_id[:100]}")
    return [found[rep_id] for rep_id in rep_ids]


def _explained(assignment: Assignment, asked: Rep, given_to: Rep, why: Reason | str) -> ExplainOut:
    steps = [] if isinstance(why, str) else [StepOut(rule_id=step.rule_id, why=step.why) for step in why.steps]
    return ExplainOut(
        assignment_id=assignment.assignment_id,
        lead_id=assignment.person_id,
        rep_id=asked.rep_id,
        name=asked.name,
        chosen=asked.rep_id == given_to.rep_id,
        why=why if isinstance(why, str) else why.why,
        steps=steps,
        given_to=given_to.rep_id,
        rules_version=assignment.rules_version,
        at=assignment.assigned_at,
    )


def _by_the_trace(assignment: Assignment, asked: Rep, given_to: Rep, exc: NotReplayable) -> str:
    """What can be said when the decision cannot be taken again."""
    said = next((trial for trial in assignment.trace if trial["matched"]), None)
    by = f"rule {said['rule_id']} gave it to {given_to.name}: {said['why']}" if said else f"{given_to.name} has it"
    return by if asked.rep_id == given_to.rep_id else f"{by}; of others nothing more is known: {exc.detail}"


def _imagined(told: PreviewIn) -> dict[str, Any]:
    values = {"lead": told.lead, "stage": told.stage, "score": told.score, "deal": told.deal}
    return {name: value for name, value in values.items() if value is not None}


async def _rules(connection: Connection, parts: Parts, told: PreviewIn) -> Rules:
    if told.version is not None:
        return await parts.rules.at_version(connection, told.version)
    if told.document is None:
        return await parts.rules.current(connection)
    with sent_within():
        return rules_of(0, told.document)


async def _known(connection: Connection, parts: Parts, told: PreviewIn, at: datetime) -> Case:
    runtime = parts.runtime
    if told.email is not None:
        email = parse_email(told.email)
        if email is None:
            raise Invalid("look at /email", [FieldError("/email", "is not an email address")])
        lead_id = await find_by_email(connection, runtime.ids, email)
    else:
        lead_id = LeadId(told.lead_id or "")
    who = await person(connection, lead_id, keys=runtime.keys)
    if not await is_known(connection, who.ids):
        raise no_such_lead(lead_id)
    return await handlers.case_now(connection, who, at)
