"""Opens and clicks become touches; an unsubscription ends marketing at once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from services.nurture.enrolments import handlers as enrolments
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import UNSUBSCRIBED
from services.nurture.tracking import queries
from services.nurture.tracking.domain import (
    TRAPPED,
    Asked,
    Habits,
    Response,
    ResponseKind,
    is_scanned,
    page_of,
    persons_id,
    response_id,
    to_withdraw,
    why_machine,
)
from services.nurture.tracking.links import Place
from services.nurture.tracking.queries import SentMessage
from shared.consents import needs_consent
from shared.db import Tx
from shared.events import ConsentChanged, TouchRecorded
from shared.ids import EventId, TouchId, derived_id
from shared.rules import NoSuchVersion

Answer = Literal["email_opened", "email_clicked"]


async def record_response(  # noqa: PLR0913  # what tells a person from a machine
    tx: Tx, parts: Parts, kind: Answer, place: Place, asked: Asked, habits: Habits
) -> SentMessage | None:
    """Tell an open or a click, each once; None when there is no such message.

    A click by which it shows that a machine goes through the message makes those before it a machine's as well.
    """
    keys = parts.runtime.keys if kind == "email_clicked" else None
    message = await queries.sent_message(tx.connection, place.message_id, keys)
    if message is None or (kind == "email_clicked" and place.number >= len(message.links)):
        return None
    known, now = await queries.responses_of(tx.connection, message.message_id), parts.runtime.clock.now()
    reason = why_machine(asked, habits, known, claimed_at=message.claimed_at, now=now)
    if reason is None:
        touch_id = persons_id(kind, message.message_id, place.number, known)
    else:
        touch_id = response_id(kind, message.message_id, place.number, automated=True)
    response = Response(touch_id, kind, place.number, now, now, reason)
    if await queries.save_response(tx.connection, response, message.message_id):
        tx.emit(await _response_touch(tx, parts, message, response))
    if kind == "email_clicked":
        known = await queries.responses_of(tx.connection, message.message_id)
        if is_scanned(known, len(message.links), now, habits.span):
            await _withdraw(tx, parts, message, to_withdraw(known, now - habits.span), habits.every_link)
    return message


async def record_trap(tx: Tx, parts: Parts, place: Place, habits: Habits) -> bool:
    """Somebody followed the link that nobody sees: what came before is a machine's. False when there is no such one."""
    message = await queries.sent_message(tx.connection, place.message_id, parts.runtime.keys)
    if message is None:
        return False
    known, now = await queries.responses_of(tx.connection, message.message_id), parts.runtime.clock.now()
    trap = Response(TouchId(derived_id("trap", message.message_id)), "trap", 0, now, now, TRAPPED)
    await queries.save_response(tx.connection, trap, message.message_id)
    await _withdraw(tx, parts, message, to_withdraw(known, now - habits.reach), TRAPPED)
    return True


async def _withdraw(tx: Tx, parts: Parts, message: SentMessage, responses: Sequence[Response], reason: str) -> None:
    """Correct touches that were told as a person's."""
    await queries.withdraw_responses(tx.connection, [one.touch_id for one in responses], reason)
    for one in responses:
        tx.emit(await _response_touch(tx, parts, message, replace(one, reason=reason), corrects=True))


async def unsubscribe(tx: Tx, parts: Parts, place: Place) -> bool:
    """Refuse in the person's name all that is sent unasked, from this commit on; False when there is no such message.

    Doing it again changes nothing, unless the person has consented again since.
    """
    message = await queries.sent_message(tx.connection, place.message_id)
    if message is None:
        return False
    someone = (await enrolments.meet(tx, parts, [message.lead_id]))[0]
    person, now = someone.person, parts.runtime.clock.now()
    granted = [
        word.at
        for (channel, purpose), word in person.consents.items()
        if channel == "email" and word.state == "granted" and needs_consent(purpose)
    ]
    since = max(granted, default=None)
    known = [suppression.since for suppression in person.suppressions if suppression.reason == UNSUBSCRIBED]
    if person.erased or any(since is None or since <= at for at in known):
        return True
    address = parts.addresses.hash_of(person.email) if person.email else None
    await people.suppress(tx.connection, message.lead_id, address, UNSUBSCRIBED, now, "nurture")
    once = derived_id("unsubscribed", message.message_id, since.isoformat() if since else "")
    await queries.save_unsubscribed(tx.connection, TouchId(once), message.message_id, now)
    tx.emit(
        ConsentChanged(
            event_id=EventId(f"consent:{once}"),
            lead_id=message.lead_id,
            occurred_at=now,
            received_at=now,
            channel="email",
            state="denied",
            origin="nurture",
            reason="one-click unsubscribe",
        ),
        await _touch(tx, parts, message, "unsubscribed", TouchId(once), at=now),
    )
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        if needs_consent(plan.purpose):
            await enrolments.end_run(tx, parts, someone, run, UNSUBSCRIBED)
    return True


async def _response_touch(
    tx: Tx, parts: Parts, message: SentMessage, response: Response, *, corrects: bool = False
) -> TouchRecorded:
    assert response.kind != "trap"
    clicked = response.kind == "email_clicked"
    page = page_of(message.links[response.number]) if clicked and response.number < len(message.links) else None
    touch = await _touch(tx, parts, message, response.kind, response.touch_id, at=response.at)
    again = {"event_id": EventId(f"{touch.event_id}:automated")} if corrects else {}
    reason = {"automated": response.reason is not None, "automated_reason": response.reason}
    return touch.model_copy(update={"page": page, **reason, **again})


async def _touch(  # noqa: PLR0913  # the fields of a touch
    tx: Tx, parts: Parts, message: SentMessage, kind: ResponseKind, touch_id: TouchId, *, at: datetime
) -> TouchRecorded:
    try:
        campaign = (await parts.catalogue.plan(tx.connection, message.sequence_id, message.version)).name
    except NoSuchVersion:
        campaign = message.sequence_id
    return TouchRecorded(
        event_id=EventId(f"nurture:{touch_id}"),
        lead_id=message.lead_id,
        occurred_at=at,
        received_at=parts.runtime.clock.now(),
        origin="nurture",
        touch_id=touch_id,
        type=kind,
        channel="Email",
        source="nurture",
        medium="email",
        campaign=campaign,
        content=message.step_id,
    )
