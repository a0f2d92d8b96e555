"""How a decision is written down, so that it can be explained later without being taken again. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.nurture.enrolments.domain import Fact
from services.nurture.people.domain import Person
from services.nurture.sending.domain import Hold, Leave, Move, NextAct, Suppress
from services.nurture.sequences.domain import BranchStep, Plan, SendStep, WaitStep
from services.nurture.sequences.steps import SplitStep
from shared.consents import permission
from shared.rules import Evaluation, Expression, Token, tokens_in

HOLDS_KEPT = 50
TURNS_AT_MOST = 100
COMPLETED = "completed"
ENTRY = ""
"""Stands for a step where a run began: no step is called so."""
_TOLD = ("type", "origin", "channel", "campaign", "stage", "previous", "segment", "conversion_type")
_PERSONAL = frozenset({"email", "phone", "first_name", "last_name", "title", "company", "attributes"})
"""Of these only whether they are there is written down."""
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
Answer = Hold | Suppress | Leave | None


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision about a message was taken on. `asked` are the checks that were asked, with their answers."""

    plan: Plan
    step: SendStep
    person: Person
    at: datetime
    asked: Sequence[tuple[str, Answer]] = ()


def decision(basis: Basis, outcome: str, reason: str | None, until: datetime | None = None) -> dict[str, Any]:
    """A decision as it is kept with its message."""
    person, channel = basis.person, basis.step.channel
    found = permission(person.consents, channel, basis.plan.purpose)
    return {
        "outcome": outcome,
        "reason": reason,
        "at": basis.at,
        "until": until,
        "person_id": person.person_id,
        "stage": person.stage,
        "consent": {
            "channel": channel,
            "purpose": basis.plan.purpose,
            "allowed": found.allowed,
            "state": found.state,
            "since": found.since,
            "why": found.why,
        },
        "suppressions": [{"reason": one.reason, "since": one.since} for one in person.suppressions],
        "checks": [_said(name, answer) for name, answer in basis.asked],
    }


def with_hold(holds: Sequence[Mapping[str, Any]], at: datetime, hold: Hold) -> list[dict[str, Any]]:
    """What has held a message so far, and holds it now: the same reason again makes its span longer."""
    now = {"last": at, "until": hold.until, "expires_at": hold.expires_at}
    kept = [dict(one) for one in holds]
    if kept and kept[-1]["reason"] == hold.reason:
        kept[-1] |= {**now, "looks": kept[-1]["looks"] + 1}
        return kept
    return [*kept, {"reason": hold.reason, "since": at, **now, "looks": 1}][-HOLDS_KEPT:]


def turns_taken(plan: Plan, start: str, act: NextAct, person: Person) -> list[dict[str, Any]]:
    """Which ways a run took at branches from a step on, with the values that decided; none where it had no choice.

    The same as the run went: the same conditions on the same values, up to a message or behind a wait.
    """
    if isinstance(act, Leave) and act.reason != COMPLETED:
        return []
    here, evaluation = start, person.evaluation()
    taken: list[dict[str, Any]] = []
    while len(taken) < TURNS_AT_MOST:
        step = plan.steps.get(here)
        if isinstance(step, BranchStep):
            turn = _turn(step, evaluation)
            taken.append({"step_id": here, **turn})
            here = turn["next_step_id"]
        elif isinstance(step, SplitStep) and isinstance(act, Move) and act.variant is not None:
            taken.append({"step_id": here, "next_step_id": act.step_id, "because": {"variant": act.variant[1]}})
            break
        elif isinstance(step, WaitStep) and not step.span:
            here = step.then
        else:
            break
    return taken


def entry(plan: Plan, fact: Fact, person: Person) -> dict[str, Any]:
    """How a run began: the fact, and what the trigger read."""
    told = {name: value for name, value in fact.fields.items() if name in _TOLD}
    read = values_read(plan.trigger, fact.values() | person.values())
    because = {"trigger": plan.trigger.source, "fact": told, "values": read}
    return {"step_id": ENTRY, "next_step_id": plan.first, "because": because}


def summary(state: str, reason: str | None, taken: Mapping[str, Any] | None) -> str:
    """In a sentence, why a message stands as it does."""
    consent = (taken or {}).get("consent") or {}
    allowed = f"; {consent['why']}" if consent.get("why") else ""
    match state:
        case "sent" | "delivered" | "bounced":
            return f"{state}: nothing spoke against it when it was claimed{allowed}"
        case "planned":
            return f"waits: {reason}" if reason else "is about to be handed over"
        case "unknown":
            return f"may have been sent, and is not sent again: {reason}"
        case _:
            return f"{state}: {reason}"


def values_read(expression: Expression, values: Mapping[str, Any]) -> dict[str, Any]:
    """What an expression reads and what that was; of what is personal only whether it is known."""
    read: dict[str, Any] = {}
    for path in expression.references:
        found: Any = values
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        hidden = path[0] == "event" or (path[0] == "lead" and len(path) > 1 and path[1] in _PERSONAL)
        read[".".join(path)] = ("known" if found is not None else None) if hidden else found
    return read


def parts_of(source: str) -> list[str]:
    """The conditions that all have to hold, each by itself; the whole where `&&` is not what joins them."""
    tokens = tokens_in(source)
    cuts, depth = [], 0
    for place, token in enumerate(tokens):
        if token.kind == "mark" and token.text in _OPENING:
            depth += 1
        elif token.kind == "mark" and token.text in _CLOSING:
            depth -= 1
        elif depth == 0 and token.kind == "mark":
            if token.text == "?" or _is_pair(tokens, place, "|"):
                return [source.strip()]
            if _is_pair(tokens, place, "&"):
                cuts.append(token.start)
    begins, ends = [0, *(cut + 2 for cut in cuts)], [*cuts, len(source)]
    return [source[begin:end].strip() for begin, end in zip(begins, ends, strict=True)]


def _is_pair(tokens: Sequence[Token], place: int, mark: str) -> bool:
    """Whether two of a mark stand here, which are one operator."""
    here = tokens[place]
    if here.text != mark or place + 1 == len(tokens):
        return False
    return tokens[place + 1].text == mark and tokens[place + 1].start == here.start + 1


def _turn(step: BranchStep, evaluation: Evaluation) -> dict[str, Any]:
    """The way a branch goes: every condition up to the one that holds, with why the others did not."""
    tried = []
    for when, to in step.turns:
        holds, why = when.holds(evaluation)
        said = {"when": when.source, "holds": holds, "why": why, "values": values_read(when, evaluation.values)}
        tried.append(said)
        if holds:
            return {"next_step_id": to, "because": {"tried": tried, "turn": len(tried)}}
    return {"next_step_id": step.then, "because": {"tried": tried, "turn": None}}


def _said(name: str, answer: Answer) -> dict[str, Any]:
    match answer:
        case None:
            return {"check": name, "says": "allowed"}
        case Hold(_, reason, until, expires_at):
            return {"check": name, "says": "held", "reason": reason, "until": until, "expires_at": expires_at}
        case Suppress(_, reason):
            return {"check": name, "says": "suppressed", "reason": reason}
        case Leave(reason):
            return {"check": name, "says": "ended", "reason": reason}


def names_of_checks(checks: Iterable[Any]) -> list[str]:
    """How checks are called in what is written down: by their feature, and by what they ask."""
    return [f"{check.__module__.rsplit('.', 2)[-2]}/{getattr(check, '__name__', 'check')}" for check in checks]
