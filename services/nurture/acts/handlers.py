"""Carries out a step that acts on something else: the ledger row, and the fact that asks for it, in one transaction.

Whoever reads the fact carries it out once, by its id; so a kill at any moment neither loses nor repeats anything.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from services.nurture.acts import queries
from services.nurture.acts.domain import act_id, kind_of, notice_context, shown_fields
from services.nurture.enrolments import handlers as enrolments
from services.nurture.parts import Parts
from services.nurture.people.domain import Person
from services.nurture.sending.mail import sender_name
from services.nurture.sending.turns import Due
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.steps import (
    ActStep,
    AssignStep,
    EnrolStep,
    NotifyStep,
    RemoveStep,
    UpdateStep,
    WebhookStep,
)
from services.nurture.templates.rendering import CannotRender
from shared.db import Tx
from shared.events import (
    AssignmentRequested,
    LeadUpdateRequested,
    NoticePersonal,
    RepNoticeRequested,
    StepPerformed,
    StepRequest,
    UpdatePersonal,
    WebhookPersonal,
    WebhookRequested,
)
from shared.ids import EventId
from shared.telemetry import counter

ACTS = counter("throughline_nurture_acts_total", "What steps did beside sending messages", ["sequence", "kind"])
TOLD = "told"
GONE = "nobody is known under this id any more, or yet"


@dataclass(frozen=True, slots=True)
class Words:
    """The text for a rep, filled in before anything is locked."""

    subject: str
    text: str


class Performing:
    """Carries out the acts of steps."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._renderer = parts.renderer

    async def write(self, plan: Plan, step: ActStep, person: Person) -> Words | str | None:
        """The words of a step that has some, or why they cannot be filled in."""
        if not isinstance(step, NotifyStep):
            return None
        sender = sender_name(self._parts.runtime.settings.mail_from)
        context = notice_context(person, plan.name, sender, self._parts.site_url)
        try:
            rendered = await self._renderer.render(step.template, context, footer=False)
        except CannotRender as exc:
            return f"the text cannot be filled: {exc}"
        return Words(" ".join(rendered.subject.split()), rendered.text)

    async def perform(  # noqa: PLR0913  # a decision names its inputs
        self, tx: Tx, due: Due, plan: Plan, step: ActStep, person: Person, words: Any
    ) -> datetime | None:
        """Do it, under the person's lock; answers when. None: not yet, since words that it needs are missing."""
        if isinstance(step, NotifyStep) and not isinstance(words, Words | str):
            await _look_once_more(tx, due)
            return None
        run, visit = due.run, due.visit(step.step_id)
        this = act_id(run.lead_id, run.sequence_id, run.run, step.step_id, visit)
        at = await queries.note(
            tx.connection, this, run, step.step_id, visit, person.person_id, person.ids, kind_of(step)
        )
        if at is None:
            return await self._parts.present_in(tx)  # the person had it already, under whatever id
        ACTS.labels(run.sequence_id, kind_of(step)).inc()
        head = {
            "event_id": this,
            "lead_id": run.lead_id,
            "occurred_at": at,
            "received_at": at,
            "enrolment_id": run.enrolment_id,
            "sequence_id": run.sequence_id,
            "sequence_version": plan.version,
            "run": run.run,
            "step_id": step.step_id,
            "visit": visit,
        }
        came_to = await self._done(tx, step, person, words, this, head)
        await queries.say(tx.connection, this, came_to)
        if isinstance(step, EnrolStep | RemoveStep):
            told: dict[str, Any] = {
                **head,
                "event_id": EventId(f"step-performed:{this}"),
                "person_id": person.person_id,
            }
            kind: Literal["enrol", "remove"] = "enrol" if isinstance(step, EnrolStep) else "remove"
            tx.emit(StepPerformed(**told, act_id=this, kind=kind, came_to=came_to))
        return at

    async def _done(  # noqa: PLR0913  # what an act is made of
        self, tx: Tx, step: ActStep, person: Person, words: Words | str | None, this: EventId, head: dict[str, Any]
    ) -> str:
        match step:
            case UpdateStep():
                return await self._told(tx, LeadUpdateRequested(**head), UpdatePersonal(fields=dict(step.fields)))
            case NotifyStep():
                if not isinstance(words, Words):
                    return str(words)
                told = NoticePersonal(to=step.to, subject=words.subject, text=words.text)
                return await self._told(tx, RepNoticeRequested(**head), told)
            case WebhookStep():
                told_lead = WebhookPersonal(lead=shown_fields(step, person))
                return await self._told(tx, WebhookRequested(**head, endpoint_id=step.endpoint), told_lead)
            case AssignStep():
                tx.emit(AssignmentRequested(**head, reason=step.reason or None))
                return TOLD
            case EnrolStep():
                (someone,) = await enrolments.meet(tx, self._parts, [person.person_id])
                return await enrolments.enrol(tx, self._parts, someone, step.sequence_id, this)
            case RemoveStep():
                (someone,) = await enrolments.meet(tx, self._parts, [person.person_id])
                left = [run for run in someone.active_runs if run.sequence_id == step.sequence_id]
                for run in left:
                    reason = f"exit: removed by the sequence {head['sequence_id']}, step {step.step_id}"
                    await enrolments.end_run(tx, someone, run, reason)
                return "left" if left else "the person was not in it"

    async def _told(
        self, tx: Tx, event: StepRequest, personal: UpdatePersonal | NoticePersonal | WebhookPersonal
    ) -> str:
        """Ask for it, sealed with the person's key."""
        told = await self._parts.runtime.keys.tell_known(tx, event, orjson.dumps(personal.model_dump(mode="json")))
        return TOLD if told else GONE


async def on_performed(event: StepPerformed, tx: Tx) -> None:
    """Our own decision, read back: it is in the ledger already, unless the database is an earlier copy.

    What other services carry out they do once by the act's id; nobody but the ledger keeps these from a second time.
    """
    await queries.restore(tx.connection, event)


async def _look_once_more(tx: Tx, due: Due) -> None:
    """The step became due between two looks: the next one finds it so from the start."""
    await queries.due_at_once(tx.connection, due.run.enrolment_id)
