"""The check that holds unasked messages while a human has taken over."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from services.nurture.sending.domain import Hold, Leave
from services.nurture.takeover import queries
from services.nurture.takeover.domain import LOOK_AGAIN, Pause, heeded
from services.nurture.takeover.standing import standing_as_known
from shared.consents import MARKETING

if TYPE_CHECKING:  # the list of checks names this one
    from services.nurture.sending.checks import Question


async def unless_taken_over(asked: Question) -> Hold | Leave | None:
    """Hold a message while a pause is in force.

    A run ends that was held for longer than the policy allows, or whose person's group became a customer.
    """
    connection, looked = asked.connection, asked.looked
    policy = await looked.once("takeover", lambda: asked.parts.takeover.current(connection))
    if asked.plan.purpose in policy.says.spares:
        return None
    families = looked.families or {asked.person.person_id: asked.family}
    known = await looked.once("taken-over", lambda: queries.known_of(connection, families, asked.now))
    found = await standing_as_known(connection, policy, asked.person, known[asked.person.person_id], asked.now)
    if found.won_at is not None and asked.run.triggered_at < found.won_at and asked.plan.purpose == MARKETING:
        return Leave(f"exit: a deal that the person has a part in was won, {found.won_at.isoformat()}")
    held_meetings = {one.at for one in known[asked.person.person_id].touches if one.type == "meeting_held"}
    began = asked.run.triggered_at
    standing = heeded(found.pauses, asked.plan.pause_on, follows_meeting=began if began in held_meetings else None)
    answers_within = timedelta(minutes=policy.says.assignment.answer_within_minutes)
    pauses = [one for one in standing if not await _answers(asked, one, answers_within)]
    if not pauses:
        return None
    pause = pauses[0]
    ends = [asked.now + LOOK_AGAIN, *([pause.until] if pause.until is not None else [])]
    if policy.says.end_after_days is not None:
        since = await queries.held_since(asked.connection, asked.run.enrolment_id, asked.step.step_id)
        patience = timedelta(days=policy.says.end_after_days)
        if since is not None and since + patience <= asked.now:
            return Leave(f"held for {policy.says.end_after_days} days: {pause.reason}")
        ends.append((since or asked.now) + patience)
    return Hold(asked.step, pause.reason, min(ends))


async def _answers(asked: Question, pause: Pause, within: timedelta) -> bool:
    """Whether it follows a meeting, or answers at once what the person did before a rep was offered the lead."""
    run = asked.run
    if pause.met is not None:
        return run.triggered_at >= pause.met
    if pause.offered is None or min(run.triggered_at, run.started_at) > pause.offered:
        return False
    if asked.now - run.started_at > within:
        return False
    return not await queries.wrote_already(asked.connection, run.lead_id, run.enrolment_id, asked.step.step_id)
