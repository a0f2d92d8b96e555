"""A person changes what they get: it counts from the commit on, and is told with its evidence."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.nurture.enrolments import handlers as enrolments
from services.nurture.enrolments.handlers import Someone
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import EVERY_CHANNEL, UNSUBSCRIBED, Person
from services.nurture.preferences import queries
from services.nurture.preferences.document import PreferencePage
from services.nurture.preferences.domain import Word, reachable, rows_of, words_of
from services.nurture.preferences.words import word
from services.nurture.sequences.domain import SendStep
from services.nurture.tracking import queries as tracking
from shared.consents import MARKETING, needs_consent, permission
from shared.db import Tx
from shared.events import ConsentChanged, ConsentEvidence, LeadErased, TouchRecorded
from shared.identity import resolve
from shared.ids import EventId, LeadId, MessageId, TouchId, derived_id
from shared.rules import NoSuchVersion

METHOD = "preference_centre"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent the page, as evidence keeps it: the network without the host."""

    network: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody at their page: in which version and language, from where, and by the address in which message."""

    page: PreferencePage
    language: str
    sender: Sender
    message_id: MessageId | None = None


async def save(  # noqa: PLR0913  # what a sent page is made of
    tx: Tx,
    parts: Parts,
    lead_id: LeadId,
    visit: Visit,
    *,
    shown_on: Collection[str],
    ticked: Collection[str],
    language: str | None,
) -> None:
    """Carry out what a person chose; what they left as it was shown stays as it is."""
    someone = (await enrolments.meet(tx, parts, [lead_id]))[0]
    now = await parts.present_in(tx)
    rows = rows_of(visit.page, someone.person, visit.language)
    await _tell(tx, parts, someone, words_of(rows, shown_on, ticked, now), visit)
    await _blame(tx, parts, someone.person, visit, now)
    spoken = (someone.person.fields.get("attributes") or {}).get("language")
    if language in visit.page.document.languages and language != spoken:
        await queries.choose_language(tx.connection, someone.person.person_id, language, now)


async def leave(tx: Tx, parts: Parts, lead_id: LeadId, visit: Visit) -> None:
    """Refuse in the person's name all that is sent unasked, on every channel, from this commit on."""
    someone = (await enrolments.meet(tx, parts, [lead_id]))[0]
    person, now = someone.person, await parts.present_in(tx)
    address = parts.addresses.hash_of(person.email) if person.email else None
    await people.suppress(tx.connection, person.person_id, address, UNSUBSCRIBED, now, "preferences", EVERY_CHANNEL)
    ways = sorted({*reachable(person), *(channel for channel, _ in person.consents)})
    about = word("leave", visit.language)
    await _tell(tx, parts, someone, [Word(MARKETING, channel, "denied", now, about) for channel in ways], visit)
    await _blame(tx, parts, person, visit, now)
    touch_id = TouchId(derived_id("left", person.person_id, now.isoformat()))
    tx.emit(
        TouchRecorded(
            event_id=EventId(f"nurture:{touch_id}"),
            lead_id=person.person_id,
            occurred_at=now,
            received_at=now,
            origin="nurture",
            touch_id=touch_id,
            type="unsubscribed",
            channel="Email",
            source="nurture",
            medium="email",
            campaign="preferences",
        )
    )
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        if needs_consent(plan.purpose):
            await enrolments.end_run(tx, someone, run, UNSUBSCRIBED)


async def pause(tx: Tx, parts: Parts, lead_id: LeadId, days: int) -> None:
    """Let a person have a break: nothing unasked for these days."""
    person_id = await people.lock_person(tx.connection, lead_id)
    now = await parts.present(tx.connection)
    await queries.pause(tx.connection, person_id, now + timedelta(days=days), now)


async def end_pause(tx: Tx, parts: Parts, lead_id: LeadId) -> None:
    """End a person's break."""
    someone = (await enrolments.meet(tx, parts, [lead_id]))[0]
    await queries.end_pause(tx.connection, someone.person.ids)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Forget what an erased person chose."""
    await queries.forget(tx.connection, event.lead_id)


async def _tell(tx: Tx, parts: Parts, someone: Someone, words: Sequence[Word], visit: Visit) -> None:
    """Tell words of consent, and let them count here at once: they come back as facts, and change nothing then."""
    person_id, now = someone.person.person_id, await parts.present_in(tx)
    facts = [await _fact(tx, parts, person_id, said, visit, now) for said in words]
    if not facts:
        return
    tx.emit(*facts)
    await people.save_consents(tx.connection, facts)
    changed = (await enrolments.meet(tx, parts, [person_id]))[0]
    await enrolments.end_refused(tx, parts, changed)


async def _blame(tx: Tx, parts: Parts, before: Person, visit: Visit, now: datetime) -> None:
    """Note that somebody who came by a message refused what it was sent for, and had not before."""
    message = await tracking.sent_message(tx.connection, visit.message_id) if visit.message_id is not None else None
    if message is None or message.lead_id not in before.ids:
        return
    try:
        plan = await parts.catalogue.plan(tx.connection, message.sequence_id, message.version)
    except NoSuchVersion:
        return
    step = plan.steps.get(message.step_id)
    if not isinstance(step, SendStep):
        return
    after = await people.load_person(tx.connection, parts.addresses, parts.runtime.keys, before.person_id)
    was, now_is = (permission(person.consents, step.channel, plan.purpose) for person in (before, after))
    if was.state != "denied" and now_is.state == "denied":
        once = TouchId(derived_id("unsubscribed", message.message_id, "page"))
        await tracking.save_unsubscribed(tx.connection, once, message.message_id, now)


async def _fact(  # noqa: PLR0913  # what a fact is made of
    tx: Tx, parts: Parts, person_id: LeadId, said: Word, visit: Visit, now: datetime
) -> ConsentChanged:
    evidence = ConsentEvidence(
        method=METHOD,
        text=said.about,
        text_version=f"preference-page {visit.page.version}, {visit.language}",
        ip=visit.sender.network,
        user_agent=visit.sender.user_agent,
    )
    text = evidence.model_dump_json(exclude_none=True).encode()
    sealed = await parts.runtime.keys.seal_known(tx.connection, {person_id: text})
    name = derived_id("preference", person_id, said.purpose, said.channel, said.state, said.at.isoformat())
    return ConsentChanged(
        event_id=EventId(f"consent:{name}"),
        lead_id=person_id,
        occurred_at=said.at,
        received_at=now,
        channel=said.channel,
        state=said.state,
        origin="nurture",
        reason="preference page",
        purpose=said.purpose,
        personal=sealed.get(person_id),
    )


async def person_at(tx: Tx, parts: Parts, lead_id: LeadId) -> Person | None:
    """Whose page it is; None where there is nobody any more."""
    person_id = await resolve(tx.connection, lead_id)
    person = await people.load_person(tx.connection, parts.addresses, parts.runtime.keys, person_id)
    return person if person.known and not person.erased else None
