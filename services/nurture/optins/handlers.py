"""From a form that asked for consent to one message with a link: claimed in the ledger, handed over, settled.

The same ledger and the same promise as for sequences: a row is committed, claimed, before the server is called, and a
claim that fell silent becomes `unknown` and is never sent again.
"""

import asyncio
import secrets
import time
from datetime import timedelta

from services.nurture.enrolments.domain import Run
from services.nurture.optins import queries
from services.nurture.optins.document import LINK, MESSAGES, OptinMessages, checked
from services.nurture.optins.domain import Ask, GiveUp, Wait, next_act
from services.nurture.optins.queries import DueOptin
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Suppression
from services.nurture.sending import queries as ledger
from services.nurture.sending.domain import TRIES, Outcome, message_id, pause_before
from services.nurture.sending.handlers import Sender, tell
from services.nurture.sending.mail import Envelope, NotMailable, compose, name_and_address
from services.nurture.sending.sealing import Said, sealed
from services.nurture.sending.smtp import Mailer
from services.nurture.templates.rendering import CannotRender, Rendered, Renderer
from services.nurture.tracking.links import Links
from shared.db import Connection, Tx
from shared.errors import Unavailable
from shared.events import LeadErased, MessageClaimed, OptinPersonal, OptinRequested
from shared.faults import failpoint
from shared.ids import EventId, LeadId, MessageId, SequenceId
from shared.rules import ActiveDocument

SEQUENCE = SequenceId("double-opt-in")
PAUSE = timedelta(seconds=1)
MOST_ADDRESS_ENTRIES = 50


async def on_requested(event: OptinRequested, tx: Tx) -> None:
    """A form asks for a link to be sent."""
    await queries.add(tx.connection, event)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Nothing goes to somebody who was erased."""
    family = (await people.load_families(tx.connection, [event.lead_id]))[event.lead_id]
    await queries.forget(tx.connection, sorted({member.lead_id for member in family}))


class OptinSender:
    """Sends what is due. Several may run at once: claims and the ledger keep them apart."""

    def __init__(self, parts: Parts, renderer: Renderer, mailer: Mailer | None, sender: Sender) -> None:
        self._parts = parts
        self._renderer = renderer
        self._mailer = mailer
        self._sender = sender
        self._links = Links(parts.runtime.secrets.links, parts.runtime.settings.public_url)
        self._messages: ActiveDocument[OptinMessages] = ActiveDocument(MESSAGES, lambda _, document: checked(document))
        self._claim = secrets.token_hex(8)

    async def run(self) -> timedelta | None:
        """Send all that is due; answers how long until the next one."""
        settings = self._parts.settings
        while True:
            async with self._parts.runtime.database.reading() as connection:
                due = await queries.claim_due(connection, self._claim, settings.claim_for, settings.claim_batch)
                if not due:
                    return await queries.next_due(connection)
            for one in due:
                await self._perform(one)

    async def _perform(self, due: DueOptin) -> None:
        """Send one message, or say why not."""
        database = self._parts.runtime.database
        async with database.reading() as connection:
            try:
                personal = await self._opened(connection, due)
            except Unavailable as exc:  # the key is on its way
                await queries.hold(connection, due.optin_id, PAUSE, exc.detail)
                return
            if personal is None:
                await queries.finish(connection, due.optin_id)
                return
            messages = await self._messages.current(connection)
        written = await self._write(due, personal, messages)
        async with database.transaction() as tx:
            attempt = await self._decide(tx, due, personal, written)
        if attempt is None or not isinstance(written, tuple):
            return
        failpoint("after_intent_before_call")
        handing_over = asyncio.create_task(self._hand_over(due, written[1], attempt))
        try:
            await asyncio.shield(handing_over)
        except asyncio.CancelledError:
            await asyncio.wait([handing_over])  # what is under way ends with a known outcome
            raise

    async def _opened(self, connection: Connection, due: DueOptin) -> OptinPersonal | None:
        keys = self._parts.runtime.keys
        (text,) = await keys.open_many(connection, [(due.lead_id, due.sealed)])
        return OptinPersonal.model_validate_json(text) if text else None

    async def _write(
        self, due: DueOptin, personal: OptinPersonal, messages: OptinMessages
    ) -> tuple[Rendered, Envelope] | str:
        """The message written out, or why it cannot be."""
        runtime = self._parts.runtime
        context = {
            LINK: personal.confirm_url,
            "form": {"name": due.form_name},
            "sender": {"name": name_and_address(runtime.settings.mail_from)[0]},
        }
        try:
            rendered = await self._renderer.render(messages.template_for(due.language), context, footer=False)
            envelope = compose(
                rendered,
                self._links,
                message_id=_message_id(due),
                sequence_id=SEQUENCE,
                purpose="transactional",
                sender=runtime.settings.mail_from,
                recipient=personal.email,
                at=runtime.clock.now(),
                tracked=False,
            )
        except CannotRender as exc:
            return f"the template cannot be filled: {exc}"
        except NotMailable as exc:
            return str(exc)
        return rendered, envelope

    async def _decide(
        self, tx: Tx, due: DueOptin, personal: OptinPersonal, written: tuple[Rendered, Envelope] | str
    ) -> int | None:
        """Claim the message in the ledger, or write down why it is not sent. Answers the number of the attempt."""
        connection, parts = tx.connection, self._parts
        person_id = await people.lock_person(connection, due.lead_id)
        if not await queries.lock_claimed(connection, due.optin_id, self._claim):
            return None
        standing = await ledger.standing_of(connection, _message_id(due))
        if standing is not None and (standing.state != "planned" or standing.claimed):
            await queries.finish(connection, due.optin_id)
            return None
        rows = await people.listed_suppressions(
            connection, parts.addresses.hash_of(personal.email), "", MOST_ADDRESS_ENTRIES
        )
        act = next_act(
            await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id),
            personal.email,
            [Suppression(row["reason"], row["since"]) for row in rows],
            await self._sender.readiness(connection),
            due.expires_at,
            await ledger.database_now(connection),
        )
        match act:
            case Wait(reason):
                await queries.hold(connection, due.optin_id, PAUSE, reason)
                return None
            case GiveUp(reason):
                await self._close(tx, due, person_id, Outcome("suppressed", reason))
                return None
            case Ask():
                if isinstance(written, str):
                    await self._close(tx, due, person_id, Outcome("failed", written))
                    return None
                return await self._claim_message(tx, due, person_id, written[0])

    async def _close(self, tx: Tx, due: DueOptin, person_id: LeadId, outcome: Outcome) -> None:
        this, run = _message_id(due), _run(due)
        await ledger.plan_message(tx.connection, this, run, due.optin_id, 1, person_id, outcome.state, outcome.reason)
        tell(tx, await ledger.close_planned(tx.connection, this, outcome))
        await queries.finish(tx.connection, due.optin_id)

    async def _claim_message(self, tx: Tx, due: DueOptin, person_id: LeadId, rendered: Rendered) -> int | None:
        this, run = _message_id(due), _run(due)
        await ledger.plan_message(tx.connection, this, run, due.optin_id, 1, person_id, "planned", None)
        said = await sealed(tx.connection, self._parts.runtime.keys, due.lead_id, Said(rendered.subject))
        claimed = await ledger.claim_message(
            tx.connection, this, self._claim, self._parts.settings.claim_for, said, person_id
        )
        if claimed is None:
            return None
        claimed_at, attempt = claimed
        await queries.hand_out(tx.connection, due.optin_id)
        tx.emit(
            MessageClaimed(
                event_id=EventId(f"message-claimed:{this}:{attempt}"),
                lead_id=due.lead_id,
                occurred_at=claimed_at,
                received_at=claimed_at,
                message_id=this,
                enrolment_id=due.optin_id,
                sequence_id=SEQUENCE,
                step_id=due.optin_id,
                visit=1,
                channel="email",
                person_id=person_id,
            )
        )
        return attempt

    async def _hand_over(self, due: DueOptin, envelope: Envelope, attempt: int) -> None:
        """Call the server, then note the outcome."""
        assert self._mailer is not None, "without one the message waits"
        settings = self._parts.settings
        lapses_at = time.monotonic() + (settings.claim_for - settings.smtp_timeout).total_seconds()
        outcome = await self._mailer.deliver(envelope, lambda: time.monotonic() < lapses_at)
        failpoint("after_call_before_outcome")
        if outcome.retry and attempt >= TRIES:
            outcome = Outcome("failed", f"given up after {attempt} tries: {outcome.reason}")
        while True:
            try:
                await self._note(due, envelope.recipient, outcome, attempt)
                return
            except Unavailable:  # the outcome is known only here: forgetting it would make it unknown for good
                if time.monotonic() > lapses_at + settings.claim_for.total_seconds():
                    raise
                await asyncio.sleep(0.5)

    async def _note(self, due: DueOptin, recipient: str, outcome: Outcome, attempt: int) -> None:
        async with self._parts.runtime.database.transaction() as tx:
            person_id = await people.lock_person(tx.connection, due.lead_id)
            row = await ledger.settle(tx.connection, _message_id(due), self._claim, outcome)
            if row is None:
                return
            tell(tx, row)
            if row["state"] == "planned":
                await queries.hold(tx.connection, due.optin_id, pause_before(attempt), outcome.reason)
                return
            await queries.finish(tx.connection, due.optin_id)
            if row["state"] == "bounced":
                address = self._parts.addresses.hash_of(recipient)
                await people.suppress(tx.connection, person_id, address, "bounced", row["settled_at"], "nurture")


def _message_id(due: DueOptin) -> MessageId:
    return message_id(due.lead_id, SEQUENCE, 1, due.optin_id, 1)


def _run(due: DueOptin) -> Run:
    """The ledger knows runs of sequences; this is one of a single step."""
    return Run(due.optin_id, SEQUENCE, 0, due.lead_id, 1, True, due.requested_at, due.requested_at)
