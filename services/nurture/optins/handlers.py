"""From a form that asked for consent to one message with a link: claimed in the ledger, handed over, settled.

The same ledger and the same promise as for sequences: a row is committed, claimed, before the server is called, and a
claim that fell silent becomes `unknown` and is never sent again.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.nurture.channels.channel import Channel, Draft
from services.nurture.enrolments.domain import Run
from services.nurture.optins import queries
from services.nurture.optins.document import LINK, MESSAGES, OptinMessages, checked
from services.nurture.optins.domain import Ask, GiveUp, Wait, next_act
from services.nurture.optins.queries import DueOptin
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.sending import queries as ledger
from services.nurture.sending.claiming import Claimed, claim_all
from services.nurture.sending.domain import OPTINS, message_id
from services.nurture.sending.handlers import Sender
from services.nurture.sending.mail import NotMailable, compose, sender_name
from services.nurture.sending.queries import Entry
from services.nurture.sending.settling import Settlement, tell
from services.nurture.templates.rendering import CannotRender, Renderer
from shared.db import Connection, Tx
from shared.events import ConsentChannel, LeadErased, OptinPersonal, OptinRequested
from shared.faults import failpoint
from shared.ids import MessageId
from shared.personal import KeysAwaited
from shared.rules import ActiveDocument
from shared.smtp import Outcome

PAUSE = timedelta(seconds=1)


async def on_requested(event: OptinRequested, tx: Tx) -> None:
    """A form asks for a link to be sent."""
    await queries.add(tx.connection, event)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Nothing goes to somebody who was erased."""
    family = (await people.load_families(tx.connection, [event.lead_id]))[event.lead_id]
    await queries.forget(tx.connection, sorted({member.lead_id for member in family}))


class OptinSender:
    """Sends what is due. Several may run at once: claims and the ledger keep them apart."""

    def __init__(
        self, parts: Parts, renderer: Renderer, channels: Mapping[ConsentChannel, Channel], sender: Sender
    ) -> None:
        self._parts = parts
        self._renderer = renderer
        self._sender = sender
        self._messages: ActiveDocument[OptinMessages] = ActiveDocument(MESSAGES, lambda _, document: checked(document))
        self._claim = secrets.token_hex(8)
        self._settlement = Settlement(parts, channels, self._claim, Requests())

    async def run(self) -> timedelta | None:
        """Send all that is due; answers how long until the next one."""
        settings = self._parts.settings
        while True:
            async with self._parts.runtime.database.reading() as connection:
                due = await queries.claim_due(connection, self._claim, settings.claim_for, settings.send_at_once)
                if not due:
                    return await queries.next_due(connection)
            sending = [asyncio.create_task(self._perform(one)) for one in due]
            try:
                await asyncio.shield(asyncio.gather(*sending))
            except asyncio.CancelledError:
                await asyncio.wait(sending)  # what is under way ends with a known outcome
                raise

    async def _perform(self, due: DueOptin) -> None:
        """Send one message, or say why not."""
        database = self._parts.runtime.database
        async with database.reading() as connection:
            try:
                personal = await self._opened(connection, due)
            except KeysAwaited as exc:
                await queries.hold(connection, due.optin_id, PAUSE, exc.detail)
                return
            if personal is None:
                await queries.finish(connection, [due.optin_id])
                return
            messages = await self._messages.current(connection)
        written = await self._write(due, personal, messages)
        async with database.transaction() as tx:
            claimed = await self._decide(tx, due, personal, written)
        failpoint("after_intent_before_call")
        for each in claimed:
            await self._settlement.hand_over(each)

    async def _opened(self, connection: Connection, due: DueOptin) -> OptinPersonal | None:
        keys = self._parts.runtime.keys
        (text,) = await keys.open_many(connection, [(due.lead_id, due.sealed)])
        return OptinPersonal.model_validate_json(text) if text else None

    async def _write(self, due: DueOptin, personal: OptinPersonal, messages: OptinMessages) -> Draft | str:
        """The message written out, or why it cannot be."""
        runtime = self._parts.runtime
        context = {
            LINK: personal.confirm_url,
            "form": {"name": due.form_name},
            "sender": {"name": sender_name(runtime.settings.mail_from)},
        }
        try:
            rendered = await self._renderer.render(messages.template_for(due.language), context, footer=False)
            envelope = compose(
                rendered,
                self._parts.links,
                message_id=_message_id(due),
                sequence_id=OPTINS,
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
        return Draft(personal.email, rendered.subject, (), envelope)

    async def _decide(self, tx: Tx, due: DueOptin, personal: OptinPersonal, written: Draft | str) -> list[Claimed]:
        """Claim the message in the ledger, or write down why it is not sent."""
        connection, parts = tx.connection, self._parts
        person_id = await people.lock_person(connection, due.lead_id)
        if not await queries.lock_claimed(connection, due.optin_id, self._claim):
            return []
        entry = Entry(_message_id(due), _run(due), due.optin_id, 1, "email", person_id)
        standing = (await ledger.standings_of(connection, [entry.message_id])).get(entry.message_id)
        if standing is not None and (standing.state != "planned" or standing.claimed):
            await queries.finish(connection, [due.optin_id])
            return []
        act = next_act(
            await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id),
            personal.email,
            await people.suppressions_of(connection, parts.addresses.hashes_of(personal.email)),
            await self._sender.lookout.readiness(connection),
            due.expires_at,
            await ledger.database_now(connection),
        )
        match act:
            case Wait(reason):
                await queries.hold(connection, due.optin_id, PAUSE, reason)
            case GiveUp(reason):
                await self._close(tx, entry, Outcome("suppressed", reason))
            case Ask() if isinstance(written, str):
                await self._close(tx, entry, Outcome("failed", written))
            case Ask():
                await queries.hand_out(connection, due.optin_id)
                return await claim_all(tx, parts, self._claim, [(entry, written)])
        return []

    async def _close(self, tx: Tx, entry: Entry, outcome: Outcome) -> None:
        await ledger.plan_messages(tx.connection, [replace(entry, state=outcome.state, reason=outcome.reason)])
        tell(tx, [await ledger.close_planned(tx.connection, entry.message_id, outcome)])
        await queries.finish(tx.connection, [entry.step_id])


class Requests:
    """Forms' requests, which ask for the messages with links."""

    async def go_on(self, tx: Tx, rows: Sequence[Any]) -> None:
        """What became of them is known: nothing has to be kept for them."""
        await queries.finish(tx.connection, [row["step_id"] for row in rows])

    async def wait(self, tx: Tx, rows: Sequence[tuple[Any, timedelta]]) -> None:
        """Ask again later."""
        for row, pause in rows:
            await queries.hold(tx.connection, row["step_id"], pause, row["reason"])


def _message_id(due: DueOptin) -> MessageId:
    return message_id(due.lead_id, OPTINS, 1, due.optin_id, 1)


def _run(due: DueOptin) -> Run:
    """The ledger knows runs of sequences; this is one of a single step."""
    return Run(due.optin_id, OPTINS, 0, due.lead_id, 1, True, due.requested_at, due.requested_at)
