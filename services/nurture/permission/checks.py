"""The checks of permission: the guard's pause, the person's own, contact pressure, and the hours of the place."""

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from services.nurture.permission import queries
from services.nurture.permission.document import SendingPolicy
from services.nurture.permission.domain import UNDER_PRESSURE, Had, answers, excess, room
from services.nurture.permission.queries import HadRow
from services.nurture.permission.timing import patience, quiet_until
from services.nurture.sending.domain import Hold, Suppress
from shared.consents import needs_consent
from shared.ids import LeadId
from shared.rules import NoSuchVersion

if TYPE_CHECKING:
    from services.nurture.sending.checks import Question

GUARD_LOOK = timedelta(minutes=10)
TURN_LOOK = timedelta(minutes=1)


async def guarded(question: "Question") -> Hold | None:
    """Nothing unasked leaves a sequence that the guard has paused, until somebody lets it go on."""
    if not needs_consent(question.plan.purpose):
        return None
    sequence_id = question.plan.sequence_id
    why = await question.looked.once(
        f"guard/{sequence_id}", lambda: queries.why_paused(question.connection, sequence_id)
    )
    return None if why is None else Hold(question.step, why, question.now + GUARD_LOOK)


async def paused(question: "Question") -> Hold | None:
    """Nothing unasked goes to who wants to hear nothing for a while."""
    until = question.person.paused_until
    if until is None or until <= question.now or not needs_consent(question.plan.purpose):
        return None
    return Hold(question.step, f"the person wants nothing before {until:%Y-%m-%d}", until)


async def pressure(question: "Question") -> Hold | Suppress | None:
    """One ledger of all that a person gets unasked: what is over a limit waits, and what has waited too long goes.

    Only the answer at the claim counts, when nobody else decides about the person: before, it is not asked.
    """
    if not question.claiming or not needs_consent(question.plan.purpose):
        return None
    policy = await _policy(question)
    rules = policy.pressure
    if (not rules.limits and not rules.gap_minutes) or _is_answer(question, policy):
        return None
    longest = max([limit.span for limit in rules.limits] + [timedelta(minutes=rules.gap_minutes)])
    had_by = await question.looked.once("had", lambda: _had_by(question, question.now - longest))
    rows = had_by[question.person.person_id]
    had = [one for row in rows if (one := await _unasked(question, row)) is not None]
    over = excess(rules, had, question.step.channel, question.now)
    if over is not None:
        return await _over(question, policy, over.until, f"{UNDER_PRESSURE}{over.why}")
    free = room(rules, had, question.step.channel, question.now)
    if free is None or not rules.priorities or await _turn_has_come(question, policy, free):
        return None
    why = f"{UNDER_PRESSURE}what waits of a sequence with a higher priority goes first"
    return await _over(question, policy, question.now + TURN_LOOK, why)


async def _had_by(question: "Question", since: datetime) -> dict[LeadId, list[HadRow]]:
    """What those had whose messages are looked at together."""
    persons = {each.person.person_id: each.person.ids for each in question.together}
    found = await queries.had_since(question.connection, list(persons.values()), since)
    return dict(zip(persons, found, strict=True))


async def _policy(question: "Question") -> SendingPolicy:
    return await question.looked.once("policy", lambda: question.parts.policy.current(question.connection))


async def _over(question: "Question", policy: SendingPolicy, until: datetime, why: str) -> Hold | Suppress:
    """Wait, until it would be too late."""
    since = await queries.due_since(question.connection, question.run.enrolment_id, question.step.step_id)
    late = (since or question.now) + patience(policy, question.step)
    if question.now >= late:
        return Suppress(question.step, f"expired under {why}")
    return Hold(question.step, why, min(until, late), expires_at=late)


async def _unasked(question: "Question", row: HadRow) -> Had | None:
    """A message as it counts; None for what is transactional. One whose sequence is gone counts."""
    try:
        plan = await question.parts.catalogue.plan(question.connection, row.sequence_id, row.version)
    except NoSuchVersion:
        return Had(row.at, row.channel, row.sequence_id, row.step_id) if row.version else None
    return Had(row.at, row.channel, plan.name, row.step_id) if needs_consent(plan.purpose) else None


async def _turn_has_come(question: "Question", policy: SendingPolicy, free: int) -> bool:
    priorities = policy.pressure.priorities
    mine = priorities.get(question.plan.sequence_id, 0)
    waiting = await queries.waiting_sequences(
        question.connection, question.person.ids, question.run.enrolment_id, UNDER_PRESSURE
    )
    return sum(priorities.get(one, 0) > mine for one in waiting) < free


async def quiet_hours(question: "Question") -> Hold | None:
    """Unasked messages wait for the hours of their channel, in the time zone of whom they are for."""
    if not needs_consent(question.plan.purpose):
        return None
    policy = await _policy(question)
    if _is_answer(question, policy):
        return None
    share = _share(question.run.enrolment_id)
    held = quiet_until(policy, question.step.channel, question.person.fields, question.now, share)
    return None if held is None else Hold(question.step, held.why, held.until)


def _share(enrolment_id: str) -> float:
    """The same part of the whole for the same run, evenly spread over runs: not all at once when the hours begin."""
    return int.from_bytes(hashlib.sha256(enrolment_id.encode()).digest()[:4], "big") / 2**32


def _is_answer(question: "Question", policy: SendingPolicy) -> bool:
    within = timedelta(minutes=policy.answer_within_minutes)
    return bool(within) and answers(question.plan, question.run.triggered_at, question.now, within)
