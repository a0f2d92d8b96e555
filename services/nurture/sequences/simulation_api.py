"""Sequences tried without effect: on one person, real or imagined, and on the facts of the last days."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, model_validator

from services.nurture.enrolments.domain import Fact
from services.nurture.errors import NoSuchLead
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.permission.handlers import had_lately
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.sequences.domain import EVENT, Plan
from services.nurture.sequences.imagining import Passage, first_trigger, imagine
from services.nurture.sequences.trials import Trial, Trials
from services.nurture.sequences.written import NEWEST, plan_of
from shared.consents import MARKETING, Consent, Standing, latest_consents
from shared.db import Connection
from shared.emails import Email
from shared.errors import FieldError, Invalid
from shared.events import ConsentChannel
from shared.identity import find_by_email, resolve
from shared.ids import EventId, LeadId, SequenceId
from shared.profiles import LEAD
from shared.rules import sent_within
from shared.web import Input, Principal, requires

WAITED = timedelta(seconds=5)
LONG_AGO = timedelta(days=1)
EARLIEST, LATEST = 2000, 2200


def _is_near(at: datetime) -> datetime:
    if not EARLIEST <= at.year <= LATEST:
        raise ValueError(f"is not between the years {EARLIEST} and {LATEST}")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_is_near)]


class ImaginedPerson(Input):
    """Somebody who need not exist: the profile by the names that expressions read."""

    lead: dict[str, Any] = Field(default_factory=dict, max_length=100)
    consent: dict[ConsentChannel, Standing] = Field(default_factory=dict)
    stage: Annotated[str | None, Field(max_length=100)] = None
    segments: list[Annotated[str, Field(max_length=100)]] = Field(default_factory=list, max_length=200)
    scores: dict[str, float] = Field(default_factory=dict, max_length=100)


class ImaginedFact(Input):
    """Something that happens, as `event` in expressions: `fields` are its other fields."""

    type: str = Field(min_length=1, max_length=100)
    at: Moment | None = None
    after_minutes: int | None = Field(default=None, ge=0, le=5_256_000, description="Counted from `now`")
    fields: dict[str, Any] = Field(default_factory=dict, max_length=50)


class SimulateSequenceIn(Input):
    """What to try, a saved `version` (default: the one that counts) or a `document`, and on what.

    On one person: `lead_id`, `email` or an imagined `person`, with the `facts` that happen, from `now` on for
    `for_days`. Without facts the person enters at `now`. Or on history: the facts of the last `days`.
    """

    version: int | None = Field(default=None, ge=1, le=NEWEST)
    document: dict[str, Any] | None = None
    lead_id: Annotated[str | None, Field(max_length=200)] = None
    email: Email | None = None
    person: ImaginedPerson | None = None
    facts: list[ImaginedFact] = Field(default_factory=list, max_length=200)
    now: Moment | None = None
    for_days: int = Field(default=365, ge=1, le=3_660)
    days: int | None = Field(default=None, ge=1, le=366)

    @model_validator(mode="after")
    def _one_of_each(self) -> "SimulateSequenceIn":
        if self.version is not None and self.document is not None:
            raise ValueError("send either version or document")
        if sum(one is not None for one in (self.lead_id, self.email, self.person, self.days)) != 1:
            raise ValueError("send one of lead_id, email and person, or days for the facts of the last days")
        return self


class HappeningOut(BaseModel):
    """Something that would happen, and why."""

    at: datetime
    what: str
    step_id: str | None
    why: str | None


class PassageOut(BaseModel):
    """What would happen to one person, with what quiet hours and contact pressure would hold and for how long."""

    version: int | None
    enters: bool
    why: str
    happenings: list[HappeningOut]
    ended_at: datetime | None


def add_simulations(router: APIRouter, parts: Parts) -> None:
    """The endpoints that try sequences."""
    runtime, trials = parts.runtime, Trials(parts)
    may_read = requires("nurture:read")

    @router.post(
        "/v1/sequences/{sequence_id}:simulate", response_model=PassageOut | Trial, responses={202: {"model": Trial}}
    )
    async def simulate_sequence(
        sequence_id: str, body: SimulateSequenceIn, principal: Annotated[Principal, Depends(may_read)], request: Request
    ) -> Any:
        """What a version would do, to one person or on history; what takes longer than some seconds is a job (202)."""
        async with runtime.database.reading() as connection:
            draft, document = await _draft(connection, parts, sequence_id, body)
            if body.days is None:
                now = body.now or await parts.present(connection)
                person = await _person(connection, parts, body, now)
                policy = await parts.policy.current(connection)
                had = await had_lately(connection, parts, policy, person, now)
                return _passage(draft, person, body, Passage(now, policy, had))
            version = await SEQUENCES.active_version(connection, sequence_id)
            serving = None if version is None else await parts.catalogue.plan(connection, draft.sequence_id, version)
        async with runtime.database.transaction() as tx:
            trial_id = await trials.ask(tx, draft, body.version, document, body.days, principal.subject)
        trials.start(trial_id, draft, serving, body.days)
        trial = await trials.finished(sequence_id, trial_id, WAITED)
        if trial.state != "running":
            return trial
        headers = {"Location": f"{request.url.path.partition(':simulate')[0]}/simulations/{trial_id}"}
        content = PassageOrTrial(trial=trial).model_dump_json()
        return Response(content.removeprefix('{"trial":')[:-1], 202, headers, media_type="application/json")

    @router.get("/v1/sequences/{sequence_id}/simulations/{trial_id}", dependencies=[Depends(may_read)])
    async def get_simulation(sequence_id: str, trial_id: str) -> Trial:
        """A simulation on history as it stands."""
        return await trials.get(sequence_id, trial_id)

    @router.delete("/v1/sequences/{sequence_id}/simulations/{trial_id}", dependencies=[Depends(may_read)])
    async def call_off_simulation(sequence_id: str, trial_id: str) -> Trial:
        """End a simulation on history."""
        return await trials.call_off(sequence_id, trial_id)


class PassageOrTrial(BaseModel):
    """A job that is not over yet."""

    trial: Trial


async def _draft(
    connection: Connection, parts: Parts, sequence_id: str, body: SimulateSequenceIn
) -> tuple[Plan, dict[str, Any]]:
    document = body.document
    if document is None:
        version = body.version
        stored = await (
            SEQUENCES.active(connection, sequence_id)
            if version is None
            else SEQUENCES.version(connection, version, sequence_id)
        )
        document = stored.document
        return await parts.catalogue.plan(connection, SequenceId(sequence_id), stored.version), document
    with sent_within():
        return plan_of(sequence_id, document), document


async def _person(connection: Connection, parts: Parts, body: SimulateSequenceIn, now: datetime) -> Person:
    if body.person is not None:
        return _imagined(body.person, now - LONG_AGO)
    if body.email is not None:
        person_id = await find_by_email(connection, parts.runtime.ids, body.email)
    else:
        person_id = await resolve(connection, LeadId(body.lead_id or ""))
    person = await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id)
    if not person.known:
        raise NoSuchLead(f"nothing is known of a lead {person_id}")
    return person


def _imagined(told: ImaginedPerson, at: datetime) -> Person:
    unknown = [name for name in told.lead if name not in LEAD or name == "consent"]
    if unknown:
        faults = [FieldError(f"/person/lead/{name}", "is no field of a lead") for name in unknown]
        raise Invalid("look at /person/lead", faults)
    if not isinstance(told.lead.get("attributes", {}), dict):
        raise Invalid("look at /person/lead", [FieldError("/person/lead/attributes", "is not an object")])
    words = [Consent(channel, state, at, MARKETING) for channel, state in told.consent.items()]
    imagined = LeadId("imagined")
    return Person(
        imagined,
        (imagined,),
        told.lead,
        latest_consents(words),
        told.stage,
        scores=told.scores,
        segments=frozenset(told.segments),
    )


def _passage(plan: Plan, person: Person, body: SimulateSequenceIn, passage: Passage) -> PassageOut:
    now = passage.entered_at
    facts = sorted((_fact(n, one, now) for n, one in enumerate(body.facts)), key=lambda fact: fact.occurred_at)
    why, enters = "no facts were given: as if one had started it", True
    if facts:
        place, why = first_trigger(plan, person, facts)
        enters = place is not None
        now, facts = (facts[place].occurred_at, facts[place + 1 :]) if place is not None else (now, [])
    if enters:
        passage.entered_at = now
        imagine(plan, person, facts, now + timedelta(days=body.for_days), passage)
    happenings = [HappeningOut(**asdict(one)) for one in passage.happenings]
    version = plan.version or None
    return PassageOut(version=version, enters=enters, why=why, happenings=happenings, ended_at=passage.ended_at)


def _fact(number: int, told: ImaginedFact, now: datetime) -> Fact:
    unknown = [name for name in told.fields if name not in EVENT]
    if unknown:
        faults = [FieldError(f"/facts/{number}/fields/{name}", "is no field of an event") for name in unknown]
        raise Invalid("look at /facts", faults)
    at = told.at or now + timedelta(minutes=told.after_minutes or 0)
    fields: Mapping[str, Any] = {**told.fields, "type": told.type}
    return Fact(EventId(f"imagined-{number}"), LeadId("imagined"), at, at, fields)
