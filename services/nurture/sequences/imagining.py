"""A passage through a sequence as it would be: the same decisions as in earnest, by an imagined clock. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

from services.nurture.acts.domain import kind_of
from services.nurture.enrolments.domain import Fact, Run, ending, newly_met, triggered
from services.nurture.people.domain import Person
from services.nurture.permission.document import SendingPolicy
from services.nurture.permission.domain import Had
from services.nurture.permission.timing import foreseen
from services.nurture.sending.domain import (
    Deliver,
    Hold,
    Leave,
    Move,
    NextAct,
    Pause,
    Perform,
    Readiness,
    Suppress,
    after,
    next_act,
)
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.walking import goal_ahead
from services.nurture.templates.document import Template, TemplateRef
from shared.consents import needs_consent

MOST = 500
READY = Readiness()


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that would happen at a step, and why."""

    at: datetime
    what: str
    step_id: str | None = None
    why: str | None = None


@dataclass(slots=True)
class Passage:
    """One passage: what would happen in it, and when it would be over, if it is.

    Hours and contact pressure hold its messages by the `policy`, where one is given; `had` is what the person was sent
    before it and in it.
    """

    entered_at: datetime
    policy: SendingPolicy | None = None
    had: list[Had] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    ended_at: datetime | None = None
    held_since: datetime | None = None
    """When the message was due that the run stands before."""


def first_trigger(plan: Plan, person: Person, facts: Sequence[Fact]) -> tuple[int | None, str]:
    """The place of the first fact that would start the sequence, and why the last one tried does or does not."""
    why = "no fact was given"
    for place, fact in enumerate(facts):
        starts, why = triggered(plan, fact, person)
        if starts:
            over = ending(plan, [fact], person, fact.occurred_at)
            if over is None:
                return place, why
            why = f"it would be over before it began, {over.kind}: {over.because}"
    return None, why


def imagine(  # noqa: PLR0913  # a decision names its inputs
    plan: Plan,
    person: Person,
    facts: Sequence[Fact],
    until: datetime,
    passage: Passage,
    number: int = 1,
) -> Passage:
    """A passage from its beginning, with the facts that occurred since, in their order."""
    entered_at = passage.entered_at
    run = Run("imagined", plan.sequence_id, plan.version, person.person_id, number, True, entered_at, entered_at)
    run, due, left, seen = replace(run, step_id=plan.first), entered_at, list(facts), []
    while len(passage.happenings) < MOST:
        if left and left[0].occurred_at <= min(due, until):
            fact = left.pop(0)
            seen.append(fact)
            run, due = _told(plan, run, person, fact, due, passage)
        elif due > until:
            passage.happenings.append(Happening(due, "would go on", run.step_id, "beyond what was asked for"))
            return passage
        else:
            run, due = _due(plan, run, person, seen, due, passage)
        if passage.ended_at is not None:
            return passage
    passage.happenings.append(Happening(due, "stopped", run.step_id, f"after {MOST} happenings"))
    return passage


def _told(  # noqa: PLR0913  # the same
    plan: Plan, run: Run, person: Person, fact: Fact, due: datetime, passage: Passage
) -> tuple[Run, datetime]:
    """A fact may end the passage, or be what it waits for."""
    at = fact.occurred_at
    over = ending(plan, [fact], person, run.triggered_at)
    if over is not None:
        _end(passage, at, f"{over.kind}: {over.because}")
        return run, due
    met = newly_met(plan, run, fact, person)
    run = replace(run, met={**run.met, **met})
    waits = run.waits_at is not None and run.waits_at == run.step_id and run.waits_at in met
    return run, at if waits or goal_ahead(plan, run, run.step_id, person, at) is not None else due


def _due(  # noqa: PLR0913  # the same
    plan: Plan, run: Run, person: Person, seen: Sequence[Fact], now: datetime, passage: Passage
) -> tuple[Run, datetime]:
    """What the run does when it is due."""
    act = next_act(plan, run, run.step_id, person, seen, READY, live=True, now=now, since=passage.held_since)
    act = _under_policy(plan, run, person, act, now, passage)
    say = passage.happenings.append
    passage.held_since = (passage.held_since or now) if isinstance(act, Hold) else None
    match act:
        case Leave(reason):
            _end(passage, now, reason)
            return run, now
        case Move():
            if act.variant is not None:
                say(Happening(now, f"draws {act.variant[1]}", act.variant[0]))
            elif act.reached is not None:
                say(Happening(now, "reaches the goal", act.reached))
            elif act.jumps:
                say(Happening(now, "skips forward", act.step_id, "the goal is met"))
            return _moved(run, act, passage, now)
        case Deliver(step) | Suppress(step, _):
            why = act.reason if isinstance(act, Suppress) else None
            what = f"sends {step.channel}" if why is None else f"does not send {step.channel}"
            say(Happening(now, what, step.step_id, why or _named(step.template)))
            if why is None and needs_consent(plan.purpose):
                passage.had.append(Had(now, step.channel, plan.name, step.step_id))
        case Perform(step):
            say(Happening(now, kind_of(step), step.step_id))
        case Hold(step, reason, until):
            assert until is not None, "only the policy holds anything here"
            say(Happening(now, f"holds {step.channel}", step.step_id, f"{reason}; until {until.isoformat()}"))
            return replace(run, step_id=step.step_id), until
        case Pause():
            raise AssertionError("nothing is missing where nothing is done")
        case _:
            assert_never(act)
    place = after(plan, step, now)
    if isinstance(place, Leave):
        _end(passage, now, place.reason)
        return run, now
    run = replace(run, visits={**run.visits, step.step_id: run.visits.get(step.step_id, 0) + 1})
    return _moved(run, place, passage, now)


def _under_policy(  # noqa: PLR0913  # the same
    plan: Plan, run: Run, person: Person, act: NextAct, now: datetime, passage: Passage
) -> NextAct:
    """What becomes of a message that could leave: hours and contact pressure may hold it, or let it expire."""
    if not isinstance(act, Deliver) or passage.policy is None:
        return act
    times = {"triggered_at": run.triggered_at, "due_at": passage.held_since or now, "now": now}
    held = foreseen(passage.policy, plan, act.step, person.fields, passage.had, **times)
    if held is None:
        return act
    return Suppress(act.step, held.why) if held.until is None else Hold(act.step, held.why, held.until)


def _moved(run: Run, place: Move, passage: Passage, now: datetime) -> tuple[Run, datetime]:
    if place.due_at > now:
        passage.happenings.append(Happening(now, "waits", place.waits_at, f"until {place.due_at.isoformat()}"))
    visits = dict(run.visits)
    if place.reached is not None:
        visits[place.reached] = visits.get(place.reached, 0) + 1
    drawn = {**run.variants, **(dict([place.variant]) if place.variant is not None else {})}
    run = replace(
        run,
        step_id=place.step_id,
        waits_at=place.waits_at,
        waiting_since=place.since,
        visits=visits,
        variants=drawn,
    )
    return run, place.due_at


def _end(passage: Passage, at: datetime, reason: str) -> None:
    passage.ended_at = at
    passage.happenings.append(Happening(at, "ends", None, reason))


def _named(template: Template | TemplateRef) -> str | None:
    return template.template_id if isinstance(template, TemplateRef) else template.subject
