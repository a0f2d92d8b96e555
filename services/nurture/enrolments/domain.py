"""Which facts start or end a run, and whether a person may enter (again)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from services.nurture.people.domain import Person
from services.nurture.sequences.document import EveryDays
from services.nurture.sequences.domain import Plan
from shared.consents import MARKETING
from shared.ids import EventId, LeadId, SequenceId
from shared.rules import Evaluation, Expression

CONVERSION = "conversion_recorded"
ACCEPTANCE = "assignment_accepted"
HANDED_OFF = "lead_handed_off"
ENROLLED = "enrolled"
"""The cause of a run that another sequence began."""
WITHDRAWN = "withdrawn"
"""What becomes of a fact that was taken back: no expression asks for it."""
MERGED = "merged: the person is in the sequence under another id"
DEAL_WON = ("routing", "deal_won")
"""Origin and type of the conversion that a won deal makes."""
MAX_AGE = timedelta(days=7)
SEGMENT_CHANGES = ("segment_entered", "segment_left")
KEPT_FOR = timedelta(hours=1)
A_DAY = timedelta(days=1)
MOST_A_DAY = 24
"""A person who is let in again each time enters a sequence no more often than this."""
_SCREENED = 10_000
_NEVER_SCREENED = ("properties", "occurred_at", "value_minor")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a lead, as expressions see it. `sealed` opens to the rest of a touch."""

    event_id: EventId
    lead_id: LeadId
    occurred_at: datetime
    received_at: datetime
    fields: Mapping[str, Any]
    sealed: str | None = None

    def values(self) -> dict[str, Any]:
        """`event` for expressions."""
        return {"event": dict(self.fields) | {"occurred_at": self.occurred_at}}


@dataclass(frozen=True, slots=True)
class Run:
    """One passage of a person through a sequence. `lead_id` is the id the person had when entering.

    It stands before `step_id`, in the wait `waits_at`, if in any. `met` says when what steps wait for occurred last,
    `variants` what was drawn at splits.
    """

    enrolment_id: str
    sequence_id: SequenceId
    version: int
    lead_id: LeadId
    run: int
    active: bool
    triggered_at: datetime
    started_at: datetime
    step_id: str = ""
    visits: Mapping[str, int] = field(default_factory=dict)
    waits_at: str | None = None
    waiting_since: datetime | None = None
    met: Mapping[str, datetime] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run ends now."""

    kind: Literal["goal", "exit"]
    because: str


@dataclass(slots=True)
class Screen:
    """Tells quickly that a fact cannot matter, whoever it is about.

    An expression over `event` and `lead` that is false whatever the lead says is settled without looking at anyone.
    Most facts (page views) are settled by the few fields that the expressions read, so the answer is remembered.
    """

    expressions: tuple[Expression, ...]
    _read: tuple[str, ...] | None = field(init=False)
    _answers: dict[tuple[Any, ...], bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        paths = {path for expression in self.expressions for path in expression.references if path[0] == "event"}
        names = {"type", *(path[1] if len(path) > 1 else "properties" for path in paths)}
        self._read = tuple(sorted(names)) if names.isdisjoint(_NEVER_SCREENED) else None

    def may_matter(self, fact: Fact) -> bool:
        """Whether any expression could hold for this fact, or it ends runs whatever they say."""
        if ends_marketing(fact):
            return True
        if self._read is None:
            return self._any_open(fact)
        key = tuple(fact.fields.get(name) for name in self._read)
        if key not in self._answers:
            if len(self._answers) >= _SCREENED:
                self._answers.clear()
            self._answers[key] = self._any_open(fact)
        return self._answers[key]

    def _any_open(self, fact: Fact) -> bool:
        evaluation = Evaluation(fact.values())
        return any(not settled(expression, evaluation, fact) for expression in self.expressions)


def settled(expression: Expression, evaluation: Evaluation, fact: Fact) -> bool:
    """Whether the expression is false whatever the lead says."""
    if not expression.reads("event"):
        return not tried_on(expression, fact)
    if expression.reads("event", "properties") and fact.sealed is not None:
        return False
    return expression.holds(evaluation) == (False, "false")


def tried_on(expression: Expression, fact: Fact) -> bool:
    """Whether an expression that names no event is tried now: on changes of stage and of the segments it may read."""
    kind = fact.fields["type"]
    return kind == "stage_changed" or (kind in SEGMENT_CHANGES and expression.reads("segments"))


def screen_of(plans: Iterable[Plan]) -> Screen:
    """One screen for all these plans, each different condition once."""
    expressions = {expression.source: expression for plan in plans for expression in plan.conditions}
    return Screen(tuple(expressions[source] for source in sorted(expressions)))


def triggered(plan: Plan, fact: Fact, person: Person) -> tuple[bool, str]:
    """Whether the fact starts the sequence for this person, and why not."""
    if person.erased:
        return False, "the person was erased"
    if not plan.trigger.reads("event") and not tried_on(plan.trigger, fact):
        return False, "the trigger names no event: only a change of stage, or of segments it reads, can start it"
    return plan.trigger.holds(fact.values() | person.values())


def may_enter(
    reentry: str | EveryDays, runs: Sequence[Run], now: datetime, most: int | None = None
) -> tuple[bool, str]:
    """Whether a person with these runs of the sequence may enter it, `most` so often, and why not."""
    if any(run.active for run in runs):
        return False, "the person is in the sequence already"
    if most is not None and len(runs) >= most:
        return False, f"the person entered {len(runs)} times, and may {most} times"
    if sum(run.started_at > now - A_DAY for run in runs) >= MOST_A_DAY:
        return (
            False,
            f"the person entered {MOST_A_DAY} times within a day: sequences that start each other in a circle?",
        )
    if not runs or reentry in ("after_exit", "always"):
        return True, "allowed"
    if isinstance(reentry, EveryDays):
        again = max(run.started_at for run in runs) + timedelta(days=reentry.days)
        return again <= now, f"the person may enter again at {again.isoformat()}"
    return False, "the person was in the sequence before, and it is entered once"


def ending(plan: Plan, facts: Sequence[Fact], person: Person, since: datetime) -> Ending | None:
    """Why a run that was triggered at `since` ends, given what happened since; the goal counts before the exit."""
    if plan.goal is not None or plan.exit is not None:
        later = [fact for fact in facts if fact.occurred_at >= since]
        contexts: list[tuple[str, dict[str, Any]]] = [
            (f"{fact.fields['type']} of {fact.occurred_at.isoformat()}", fact.values() | person.values())
            for fact in later
        ]
        contexts.append(("what is known of the person", person.values()))
        for because, values in contexts:
            evaluation = Evaluation(values)
            if plan.goal is not None and plan.goal.holds(evaluation)[0]:
                return Ending("goal", because)
            if plan.exit is not None and plan.exit.holds(evaluation)[0]:
                return Ending("exit", because)
    if plan.purpose == MARKETING:
        won = next((fact for fact in facts if ends_marketing(fact) and fact.occurred_at > since), None)
        if won is not None:
            return Ending("exit", f"the person became a customer, {won.occurred_at.isoformat()}")
    return None


def newly_met(plan: Plan, run: Run, fact: Fact, person: Person) -> dict[str, datetime]:
    """The steps of a run that a fact meets, and nothing later has met, with when it occurred."""
    if fact.occurred_at < run.triggered_at or not plan.watched:
        return {}
    evaluation, at = Evaluation(fact.values() | person.values()), fact.occurred_at
    return {
        step_id: at
        for step_id, when in plan.watched.items()
        if (known := run.met.get(step_id)) is None or known < at
        if when.holds(evaluation)[0]
    }


def ends_marketing(fact: Fact) -> bool:
    """Whether the person became a customer: what was begun to win them is over, what begins then is for customers."""
    fields = fact.fields
    is_won = fields["type"] == CONVERSION and (fields.get("origin"), fields.get("conversion_type")) == DEAL_WON
    return is_won or fields["type"] == HANDED_OFF


def superfluous(runs: Sequence[Run]) -> list[Run]:
    """Of a person's active runs of each sequence all but the earliest: two ids turned out to be one person."""
    seen: set[SequenceId] = set()
    extra = []
    for run in sorted((run for run in runs if run.active), key=lambda run: (run.started_at, run.enrolment_id)):
        if run.sequence_id in seen:
            extra.append(run)
        seen.add(run.sequence_id)
    return extra
