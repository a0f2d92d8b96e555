"""Opens and clicks become touches; an unsubscription ends marketing at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.nurture.enrolments import handlers as enrolments
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import UNSUBSCRIBED
from services.nurture.tracking import queries
from services.nurture.tracking.domain import (
    CLICKS,
    TRAPPED,
    Answer,
    Asked,
    Habits,
    Response,
    ResponseKind,
    is_scanned,
    page_of,
    persons_id,
    response_id,
    to_withdraw,
    why_itself,
    why_machine,
)
from services.nurture.tracking.links import Links, Place
from services.nurture.tracking.queries import SentMessage
from shared.consents import needs_consent
from shared.db import Connection, Tx
from shared.events import ConsentChanged, ConsentChannel, TouchRecorded
from shared.ids import EventId, TouchId, derived_id
from shared.rules import NoSuchVersion

_MARKS: Mapping[ConsentChannel, tuple[str, str]] = {
    "email": ("Email", "email"),
    "sms": ("SMS", "sms"),
    "whatsapp": ("WhatsApp", "whatsapp"),
}
"""The channel and the medium by which journeys know what came of a message."""


async def short_place(connection: Connection, links: Links, token: str) -> Place | None:
    """What a short address stands for; None when it was not made here, or its message never left."""
    said = links.read_short(token)
    if said is None:
        return None
    near = await queries.sent_between(connection, said.first, said.last)
    return next((Place(each, said.number) for each in near if links.proves(said, each)), None)


async def record_open(tx: Tx, parts: Parts, place: Place, asked: Asked, habits: Habits) -> None:
    """Tell an open, once."""
    message = await queries.sent_message(tx.connection, place.message_id)
    if message is not None:
        await _record(tx, parts, message, "email_opened", 0, asked, habits)


async def record_click(tx: Tx, parts: Parts, place: Place, asked: Asked, habits: Habits) -> str | None:
    """Tell a click on a link, once; answers where it leads, None when there is no such link.

    A click by which it shows that a machine goes through the message makes those before it a machine's as well.
    """
    message = await queries.sent_message(tx.connection, place.message_id, parts.runtime.keys)
    if message is None or place.number >= len(message.links):
        return None
    now = await _record(tx, parts, message, CLICKS[message.channel], place.number, asked, habits)
    known = await queries.responses_of(tx.connection, message.message_id)
    if is_scanned(known, len(message.links), now, habits):
        await _withdraw(tx, parts, message, to_withdraw(known, now - habits.span), habits.every_link)
    return message.links[place.number]


async def _record(  # noqa: PLR0913  # what tells a person from a machine
    tx: Tx, parts: Parts, message: SentMessage, kind: Answer, number: int, asked: Asked, habits: Habits
) -> datetime:
    known, now = await queries.responses_of(tx.connection, message.message_id), await parts.present_in(tx)
    reason = why_machine(asked, habits, known, claimed_at=message.claimed_at, now=now)
    if reason is None:
        touch_id = persons_id(kind, message.message_id, number, known)
    else:
        touch_id = response_id(kind, message.message_id, number, automated=True)
    response = Response(touch_id, kind, number, now, now, reason)
    if await queries.save_response(tx.connection, response, message.message_id):
        tx.emit(await _response_touch(tx, parts, message, response))
    return now


async def record_trap(tx: Tx, parts: Parts, place: Place, asked: Asked, habits: Habits) -> bool:
    """Somebody followed the link that nobody sees: what came before is a machine's. False when there is no such one.

    A machine that shows itself, which also comes to a message that is passed on, speaks for itself alone.
    """
    message = await queries.sent_message(tx.connection, place.message_id, parts.runtime.keys)
    if message is None:
        return False
    if why_itself(asked, habits) is not None:
        return True
    known, now = await queries.responses_of(tx.connection, message.message_id), await parts.present_in(tx)
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
    """Refuse in the person's name all that is sent unasked on the channel of a message, from this commit on.

    False when there is no such message.
    Doing it again changes nothing, unless the person has consented again since.
    """
    message = await queries.sent_message(tx.connection, place.message_id)
    if message is None:
        return False
    someone = (await enrolments.meet(tx, parts, [message.lead_id]))[0]
    person, now = someone.person, await parts.present_in(tx)
    granted = [
        word.at
        for (channel, purpose), word in person.consents.items()
        if channel == message.channel and word.state == "granted" and needs_consent(purpose)
    ]
    since = max(granted, default=None)
    known = [one.since for one in person.suppressions if one.reason == UNSUBSCRIBED and one.concerns(message.channel)]
    if person.erased or any(since is None or since <= at for at in known):
        return True
    where = person.email if message.channel == "email" else person.phone
    address = parts.addresses.hash_of(where) if where else None
    await people.suppress(tx.connection, message.lead_id, address, UNSUBSCRIBED, now, "nurture", message.channel)
    once = derived_id("unsubscribed", message.message_id, since.isoformat() if since else "")
    await queries.save_unsubscribed(tx.connection, TouchId(once), message.message_id, now)
    tx.emit(
        ConsentChanged(
            event_id=EventId(f"consent:{once}"),
            lead_id=message.lead_id,
            occurred_at=now,
            received_at=now,
            channel=message.channel,
            state="denied",
            origin="nurture",
            reason="one-click unsubscribe",
        ),
        await _touch(tx, parts, message, "unsubscribed", TouchId(once), at=now),
    )
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        if needs_consent(plan.purpose):
            await enrolments.end_run(tx, someone, run, UNSUBSCRIBED)
    return True


async def _response_touch(
    tx: Tx, parts: Parts, message: SentMessage, response: Response, *, corrects: bool = False
) -> TouchRecorded:
    assert response.kind != "trap"
    clicked = response.kind in CLICKS.values()
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
    channel, medium = _MARKS[message.channel]
    return TouchRecorded(
        event_id=EventId(f"nurture:{touch_id}"),
        lead_id=message.lead_id,
        occurred_at=at,
        received_at=await parts.present_in(tx),
        origin="nurture",
        touch_id=touch_id,
        type=kind,
        channel=channel,
        source="nurture",
        medium=medium,
        campaign=campaign,
        content=message.step_id,
    )
