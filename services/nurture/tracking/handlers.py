"""Opens and clicks become touches; an unsubscription ends marketing at once."""

from services.nurture.enrolments import handlers as enrolments
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import UNSUBSCRIBED
from services.nurture.tracking import queries
from services.nurture.tracking.domain import ResponseKind, is_machine, page_of, response_id
from services.nurture.tracking.links import Place
from services.nurture.tracking.queries import SentMessage
from shared.consents import needs_consent
from shared.db import Tx
from shared.events import ConsentChanged, TouchRecorded
from shared.ids import EventId, TouchId, derived_id
from shared.rules import NoSuchVersion


async def record_response(  # noqa: PLR0913  # what tells a person from a machine
    tx: Tx, parts: Parts, kind: ResponseKind, place: Place, *, method: str, user_agent: str | None
) -> SentMessage | None:
    """Tell an open or a click, each once; None when there is no such message."""
    keys = parts.runtime.keys if kind == "email_clicked" else None
    message = await queries.sent_message(tx.connection, place.message_id, keys)
    if message is None or (kind == "email_clicked" and place.number >= len(message.links)):
        return None
    automated = is_machine(
        method=method,
        user_agent=user_agent,
        claimed_at=message.claimed_at,
        now=parts.runtime.clock.now(),
        window=parts.settings.scanner_window,
    )
    touch_id = response_id(kind, message.message_id, place.number, automated=automated)
    if await queries.save_response(tx.connection, touch_id, message.message_id):
        page = page_of(message.links[place.number]) if kind == "email_clicked" else None
        tx.emit(await _touch(tx, parts, message, kind, touch_id, page=page, automated=automated))
    return message


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
        await _touch(tx, parts, message, "unsubscribed", TouchId(once), page=None, automated=False),
    )
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        if needs_consent(plan.purpose):
            await enrolments.end_run(tx, parts, someone, run, UNSUBSCRIBED)
    return True


async def _touch(  # noqa: PLR0913  # the fields of a touch
    tx: Tx,
    parts: Parts,
    message: SentMessage,
    kind: ResponseKind,
    touch_id: TouchId,
    *,
    page: str | None,
    automated: bool,
) -> TouchRecorded:
    try:
        campaign = (await parts.catalogue.plan(tx.connection, message.sequence_id, message.version)).name
    except NoSuchVersion:
        campaign = message.sequence_id
    now = parts.runtime.clock.now()
    return TouchRecorded(
        event_id=EventId(f"nurture:{touch_id}"),
        lead_id=message.lead_id,
        occurred_at=now,
        received_at=now,
        origin="nurture",
        touch_id=touch_id,
        type=kind,
        channel="Email",
        source="nurture",
        medium="email",
        campaign=campaign,
        content=message.step_id,
        page=page,
        automated=automated,
    )
