"""Experiments as they go: a plan for each person, who takes part, what is ruled, and our own word of it read back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.nurture.enrolments.domain import Run
from services.nurture.experiments import queries
from services.nurture.experiments.domain import Choice, Ruling, Trial, choose, judge
from services.nurture.experiments.tallies import tallies_of
from services.nurture.parts import Parts
from services.nurture.people.domain import Person
from services.nurture.sending.domain import Deliver, Leave, Move, NextAct
from services.nurture.sending.turns import Due
from services.nurture.sequences.domain import ForkStep, Plan, PlanStep, SendStep, WaitStep
from services.nurture.sequences.walking import passed_by
from shared.db import Connection, Tx
from shared.events import ExperimentRuled, MessageClaimed, VariantAssigned
from shared.ids import EventId, SequenceId, derived_id
from shared.telemetry import log

BY_ITSELF = "throughline"


async def plan_for(connection: Connection, plan: Plan, person: Person) -> Plan:
    """The plan as this person follows it: each experiment's step done as their variant has it."""
    if not plan.trials:
        return plan
    given = await queries.given_before(connection, plan.sequence_id, person.ids)
    ruled = await queries.verdicts(connection, plan.sequence_id)
    choices = {
        step_id: choose(
            trial,
            plan.sequence_id,
            person.person_id,
            given.get(trial.experiment.id, ()),
            queries.standing_of(ruled, trial),
        )
        for step_id, trial in plan.trials.items()
    }
    own = {step_id: _as_chosen(plan.steps[step_id], choices[step_id]) for step_id in choices}
    return replace(plan, steps={**plan.steps, **own}, choices=choices)


def _as_chosen(step: PlanStep, choice: Choice) -> PlanStep:
    variant = choice.variant
    if isinstance(step, SendStep):
        return replace(step, template=variant.template or step.template)
    if isinstance(step, WaitStep):
        return replace(step, span=choice.wait)
    assert isinstance(step, ForkStep) and variant.to is not None
    return replace(step, then=variant.to)


async def take_part(  # noqa: PLR0913  # who, where, and what they are about to do
    tx: Tx, plan: Plan, due: Due, person: Person, act: NextAct, now: datetime
) -> None:
    """Note the variants that a person is given by what is done now. `plan` is theirs, and they are locked."""
    if not plan.choices:
        return
    if isinstance(act, Move | Leave):
        reached: Sequence[str] = act.passed
    else:
        reached = [
            *passed_by(plan, due.run, due.step_id, person, now),
            *([act.step.step_id] if isinstance(act, Deliver) else ()),
        ]
    for name in reached:
        choice = plan.choices.get(name)
        if choice is None or not choice.counted:
            continue
        event = _assigned(plan, plan.trials[name], choice, due.run, now)
        if await queries.save_assignment(tx.connection, event):
            tx.emit(event)


def _assigned(plan: Plan, trial: Trial, choice: Choice, run: Run, at: datetime) -> VariantAssigned:
    experiment_id = trial.experiment.id
    return VariantAssigned(
        event_id=EventId(f"variant:{derived_id('variant', plan.sequence_id, experiment_id, run.lead_id)}"),
        lead_id=run.lead_id,
        occurred_at=at,
        received_at=at,
        sequence_id=plan.sequence_id,
        experiment_id=experiment_id,
        design=trial.design,
        variant=choice.variant.id,
        enrolment_id=run.enrolment_id,
    )


def named(plan: Plan, step_id: str) -> tuple[str, str] | None:
    """The experiment at a step, and the variant by which a person's plan has it."""
    choice = plan.choices.get(step_id)
    return None if choice is None else (plan.trials[step_id].experiment.id, choice.variant.id)


async def judge_all(parts: Parts) -> None:
    """Look at the experiments of all sequences that can be entered, and rule about what is beyond doubt."""
    database = parts.runtime.database
    async with database.reading() as connection:
        plans = [plan for plan in await parts.catalogue.entered(connection) if plan.trials]
    for plan in plans:
        async with database.transaction() as tx:
            await queries.take_turn(tx.connection, plan.sequence_id)
            ruled = await queries.verdicts(tx.connection, plan.sequence_id)
            for trial in plan.trials.values():
                standing = queries.standing_of(ruled, trial)
                if standing.winner is None and (trial.experiment.guard or trial.experiment.decide == "automatically"):
                    counted = await tallies_of(tx.connection, plan.sequence_id, trial)
                    for ruling in judge(trial, [one.tally for one in counted], standing):
                        await rule(tx, parts, plan.sequence_id, trial, ruling, BY_ITSELF)


async def rule(  # noqa: PLR0913  # what a ruling is made of
    tx: Tx, parts: Parts, sequence_id: SequenceId, trial: Trial, ruling: Ruling, decided_by: str
) -> None:
    """Write down a ruling and tell it. What is ruled by itself is ruled once."""
    now = await parts.present(tx.connection)
    name = (sequence_id, trial.experiment.id, trial.design, ruling.kind, ruling.variant_id)
    again = () if decided_by == BY_ITSELF else (decided_by, now.isoformat())
    event = ExperimentRuled(
        event_id=EventId(f"ruled:{derived_id('ruling', *name, *again)}"),
        occurred_at=now,
        received_at=now,
        sequence_id=sequence_id,
        experiment_id=trial.experiment.id,
        design=trial.design,
        ruling=ruling.kind,
        variant=ruling.variant_id,
        reason=ruling.reason,
        decided_by=decided_by,
    )
    if await queries.save_ruling(tx.connection, event):
        log.info("experiment_ruled", sequence_id=sequence_id, experiment=trial.experiment.id, ruling=ruling.kind)
        tx.emit(event)


async def on_assigned(event: VariantAssigned, tx: Tx) -> None:
    """Our own decision, read back: it is here already, unless the database is an earlier copy."""
    await queries.save_assignment(tx.connection, event)


async def on_ruled(event: ExperimentRuled, tx: Tx) -> None:
    """Our own decision, read back."""
    await queries.save_ruling(tx.connection, event)


async def on_claimed(event: MessageClaimed, tx: Tx) -> None:
    """Our own decision, read back: which variant the message was."""
    await queries.note_variants(tx.connection, [event])
