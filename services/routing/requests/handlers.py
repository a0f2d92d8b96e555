"""Carries out what sequences ask. A fact that comes again, also after a restore, finds it done by its id."""

from services.routing.assignments import queries as assignments
from services.routing.assignments.dispatch import dispatching
from services.routing.notifications.queries import Notice, notice
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.requests import queries
from services.routing.webhooks import queries as webhooks
from services.routing.webhooks.domain import Outgoing
from services.routing.webhooks.handlers import enqueue
from shared.db import Tx, agreed_now
from shared.events import AssignmentRequested, NoticePersonal, RepNoticeRequested, WebhookPersonal, WebhookRequested
from shared.telemetry import counter, log
from shared.webhooks import envelope

UNANSWERED = counter(
    "throughline_routing_requests_unanswered_total",
    "What sequences asked and could not be done, for nobody or nothing is there",
    ["what"],
)
KIND = "throughline.sequence.step_reached"
NOTICE = "sequence"
OWNER = "owner"


async def on_assignment_requested(event: AssignmentRequested, tx: Tx, *, parts: Parts) -> None:
    """Find a rep for a lead that has none, whatever its stage."""
    rules = await parts.rules.current(tx.connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        who = await person(tx.connection, event.lead_id, keys=parts.runtime.keys)
        situation = await dispatcher.situation(who, event.event_id, event.event_id)
        if not who.erased and situation.current is None and not situation.decided:
            await dispatcher.place(who, situation, event.event_id, event.event_id)


async def on_notice_requested(event: RepNoticeRequested, tx: Tx, *, parts: Parts) -> None:
    """Have a rep told, by the channels that they want for `sequence`."""
    keys, at = parts.runtime.keys, await agreed_now(tx.connection, parts.runtime.clock)
    (text,) = await keys.open_many(tx.connection, [(event.lead_id, event.personal)])
    if text is None or event.personal is None:
        return
    to = NoticePersonal.model_validate_json(text).to
    if to == OWNER:
        who = await person(tx.connection, event.lead_id, keys=keys)
        current = await assignments.current(tx.connection, who.person_id)
        rep_id = None if current is None else current.rep_id
    else:
        rep_id = await queries.rep_called(tx.connection, to)
    if rep_id is None:
        UNANSWERED.labels("notice").inc()
        log.warning("notice_for_nobody", event_id=event.event_id, sequence_id=event.sequence_id, step_id=event.step_id)
        return
    await queries.keep_words(tx.connection, event.event_id, event.lead_id, event.personal, at)
    await notice(tx.connection, [Notice(event.event_id, NOTICE, event.visit, rep_id, event.lead_id)], at)


async def on_webhook_requested(event: WebhookRequested, tx: Tx, *, parts: Parts) -> None:
    """Deliver to the endpoint that a run came to a step: signed, retried, under the id of the fact."""
    keys, at = parts.runtime.keys, await agreed_now(tx.connection, parts.runtime.clock)
    if await webhooks.endpoint(tx.connection, event.endpoint_id) is None:
        UNANSWERED.labels("webhook").inc()
        log.warning("webhook_for_nobody", endpoint_id=event.endpoint_id, sequence_id=event.sequence_id)
        return
    (text,) = await keys.open_many(tx.connection, [(event.lead_id, event.personal)])
    if text is None:
        return
    data = {
        "lead_id": event.lead_id,
        "sequence_id": event.sequence_id,
        "sequence_version": event.sequence_version,
        "enrolment_id": event.enrolment_id,
        "run": event.run,
        "step_id": event.step_id,
        "visit": event.visit,
        "occurred_at": event.occurred_at,
        "lead": WebhookPersonal.model_validate_json(text).lead,
    }
    body = envelope(KIND, event.occurred_at, data)
    outgoing = Outgoing(event.event_id, event.endpoint_id, KIND, body, event.lead_id, (event.lead_id,))
    await enqueue(tx.connection, keys, [outgoing], at)
