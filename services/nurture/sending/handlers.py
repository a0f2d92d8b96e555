"""From a due step to a message that left: claim, render, enter in the ledger, hand over, note the outcome.

Nothing leaves inside a transaction. The ledger row is committed, claimed, before the provider is called; a row whose
claim falls silent becomes `unknown` and is never claimed again.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from services.nurture.enrolments import handlers as enrolments
from services.nurture.enrolments.domain import Run
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.sending import queries
from services.nurture.sending.domain import (
    TRIES,
    Deliver,
    Hold,
    Leave,
    Move,
    NextAct,
    Outcome,
    Readiness,
    Suppress,
    after,
    message_id,
    next_act,
    pause_before,
)
from services.nurture.sending.mail import Envelope, NotMailable, compose, name_and_address
from services.nurture.sending.queries import Due
from services.nurture.sending.sealing import Said, sealed
from services.nurture.sending.smtp import Mailer
from services.nurture.sequences.domain import Plan, SendStep
from services.nurture.templates.rendering import CannotRender, Rendered, Renderer
from services.nurture.tracking.links import Links
from shared.consents import needs_consent
from shared.db import Connection, Tx
from shared.errors import Unavailable
from shared.events import MessageClaimed, MessageSettled
from shared.faults import failpoint
from shared.ids import EventId, LeadId, MessageId
from shared.rules import NoSuchVersion
from shared.telemetry import counter, log

SETTLED = counter("throughline_nurture_messages_total", "Messages by what became of them", ["sequence", "state"])
HELD = counter("throughline_nurture_held_total", "Times a due message had to wait")

NO_PROVIDER = "no SMTP_URL is set"
NO_PROVIDER_PAUSE = timedelta(minutes=10)
STALE_CONSENT = "what people consent to is not known to be fresh"
STALE_LEDGER = "what was sent already is not known to be fresh"
DEAD_CLAIM = "the sender fell silent between the claim and the outcome"
RESTORED = "claimed before the database was restored"


@dataclass(frozen=True, slots=True)
class Look:
    """A due run with all that decides about it."""

    plan: Plan
    person: Person
    act: NextAct


@dataclass(frozen=True, slots=True)
class Draft:
    """A message written out before it is claimed, and the address it is for."""

    recipient: str
    rendered: Rendered
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message in the ledger, claimed by us, and not yet handed over."""

    message_id: MessageId
    run: Run
    plan: Plan
    step: SendStep
    visits: dict[str, int]
    claimed_at: datetime
    attempt: int
    envelope: Envelope


class Sender:
    """Carries out due steps. Several may run at once: claims and the ledger keep them apart."""

    def __init__(self, parts: Parts, renderer: Renderer, mailer: Mailer | None) -> None:
        self._parts = parts
        self._renderer = renderer
        self._mailer = mailer
        self._links = Links(parts.runtime.secrets.links, parts.runtime.settings.public_url)
        self._claim = secrets.token_hex(8)
        self._connected_since: float | None = None
        self._released = False

    async def run(self) -> timedelta | None:
        """Carry out all steps that are due; answers how long until the next one."""
        try:
            return await self._run()
        except Unavailable:
            self._connected_since = None  # it may come back as an earlier copy of itself
            raise

    async def _run(self) -> timedelta | None:
        database = self._parts.runtime.database
        if self._connected_since is None:
            self._connected_since = time.monotonic()
        if self._mailer is not None and not self._released:
            async with database.reading() as connection:
                await queries.release_held(connection, NO_PROVIDER)
            self._released = True
        await self._give_up_dead_claims()
        settings = self._parts.settings
        while True:
            async with database.reading() as connection:
                due = await queries.claim_due(connection, self._claim, settings.claim_for, settings.claim_batch)
                if not due:
                    return await queries.next_due(connection)
            for one in due:
                await self._perform(one)

    async def _perform(self, due: Due) -> None:
        """Carry out one step of one run."""
        draft: Draft | str | None = None
        async with self._parts.runtime.database.reading() as connection:
            look = await self._look(connection, due)
        if isinstance(look.act, Deliver):
            draft = await self._write(due, look, look.act.step)
        async with self._parts.runtime.database.transaction() as tx:
            claimed = await self._decide(tx, due, draft)
        if claimed is None:
            return
        failpoint("after_intent_before_call")
        handing_over = asyncio.create_task(self._hand_over(claimed))
        try:
            await asyncio.shield(handing_over)
        except asyncio.CancelledError:
            await asyncio.wait([handing_over])  # what is under way ends with a known outcome
            raise

    async def _look(self, connection: Connection, due: Due, person_id: LeadId | None = None) -> Look:
        parts, run = self._parts, due.run
        plan = await parts.catalogue.plan(connection, run.sequence_id, run.version)
        if person_id is None:
            person_id = await people.person_of(connection, run.lead_id)
        person = await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id)
        family = (await people.load_families(connection, [person_id]))[person_id]
        act = next_act(
            plan,
            run,
            due.step_id,
            person,
            await people.milestones_since(connection, family, run.triggered_at),
            await self.readiness(connection),
            live=await parts.catalogue.live(connection, run.sequence_id),
            now=await queries.database_now(connection),
        )
        return Look(plan, person, act)

    async def readiness(self, connection: Connection) -> Readiness:
        """What is missing before anything is sent.

        Freshness counts from when we have been connected: a database that comes back may be an earlier copy.
        """
        runtime = self._parts.runtime
        since = self._connected_since if self._connected_since is not None else time.monotonic()
        within = min(runtime.settings.fresh_within, timedelta(seconds=time.monotonic() - since))
        consent = await runtime.feeds.fresh(connection, "leads", within)
        ledger = await runtime.feeds.fresh(connection, "messages", within)
        return Readiness(
            provider=None if self._mailer is not None else NO_PROVIDER,
            consent=None if consent else STALE_CONSENT,
            ledger=None if ledger else STALE_LEDGER,
        )

    async def _write(self, due: Due, look: Look, step: SendStep) -> Draft | str:
        """The message written out, or why it cannot be."""
        runtime = self._parts.runtime
        this = self._message_id(due, step)
        recipient = look.person.email or ""
        values: dict[str, Any] = look.person.values().get("lead", {})
        context = {
            "lead": {name: value for name, value in values.items() if name != "consent"},
            "sequence": {"name": look.plan.name},
            "sender": {"name": name_and_address(runtime.settings.mail_from)[0]},
            "site_url": self._parts.site_url,
            "unsubscribe_url": self._links.address("u", this),
        }
        try:
            rendered = await self._renderer.render(step.template, context, footer=needs_consent(look.plan.purpose))
            envelope = compose(
                rendered,
                self._links,
                message_id=this,
                sequence_id=due.run.sequence_id,
                purpose=look.plan.purpose,
                sender=runtime.settings.mail_from,
                recipient=recipient,
                at=runtime.clock.now(),
            )
        except CannotRender as exc:
            return f"the template cannot be filled: {exc}"
        except NotMailable as exc:
            return str(exc)
        return Draft(recipient, rendered, envelope)

    def _message_id(self, due: Due, step: SendStep) -> MessageId:
        run = due.run
        return message_id(run.lead_id, run.sequence_id, run.run, step.step_id, due.visit(step.step_id))

    async def _decide(self, tx: Tx, due: Due, draft: Draft | str | None) -> Claimed | None:
        """Decide again, now that nobody else decides about this person, and write it down."""
        person_id = await people.lock_person(tx.connection, due.run.lead_id)
        locked = await queries.lock_claimed(tx.connection, due.run.enrolment_id, self._claim)
        if locked is None:
            return None
        look = await self._look(tx.connection, locked, person_id)
        match look.act:
            case Move(step_id, due_at):
                await queries.move_run(tx.connection, locked.run.enrolment_id, step_id, due_at, locked.visits)
                return None
            case Leave(reason):
                someone = (await enrolments.meet(tx, self._parts, [person_id]))[0]
                await enrolments.end_run(tx, self._parts, someone, locked.run, reason)
                return None
            case Hold() | Suppress() | Deliver():
                return await self._at_message(tx, locked, look, look.act, draft)
            case _:
                assert_never(look.act)

    async def _at_message(
        self, tx: Tx, due: Due, look: Look, act: Hold | Suppress | Deliver, draft: Draft | str | None
    ) -> Claimed | None:
        connection, step, run = tx.connection, act.step, due.run
        this = self._message_id(due, step)
        await queries.stand_before(connection, run.enrolment_id, step.step_id)
        standing = await queries.standing_of(connection, this)
        if standing is not None and standing.state != "planned":
            await self._go_on(tx, due, look.plan, step, await queries.database_now(connection))
            return None
        if standing is not None and standing.claimed:
            await queries.wait_longer(connection, run.enrolment_id, "another process has claimed the message")
            return None
        visit = due.visit(step.step_id)
        ids = look.person.ids
        if await queries.had_already(connection, ids, run.sequence_id, run.run, step.step_id, visit, this):
            act = Suppress(step, "the person had this under another of their ids")
        if isinstance(act, Deliver) and isinstance(draft, str):
            await self._close(tx, due, look, step, Outcome("failed", draft))
        elif isinstance(act, Suppress):
            await self._close(tx, due, look, step, Outcome("suppressed", act.reason))
        elif isinstance(act, Hold):
            await self._wait(connection, due, look, act)
        elif isinstance(draft, Draft) and draft.recipient == look.person.email:
            return await self._claim_message(tx, due, look, step, draft)
        else:  # it may be sent since a moment ago: look again at once
            await queries.hold_run(connection, run.enrolment_id, timedelta(), "changed while it was looked at")
        return None

    async def _wait(self, connection: Connection, due: Due, look: Look, act: Hold) -> None:
        """Write down that a message is planned, and why it has to wait."""
        HELD.inc()
        this, visit = self._message_id(due, act.step), due.visit(act.step.step_id)
        if not await queries.plan_message(
            connection, this, due.run, act.step.step_id, visit, look.person.person_id, "planned", act.reason
        ):
            await queries.say_why_waiting(connection, this, act.reason)
        if act.reason == NO_PROVIDER:
            await queries.hold_run(connection, due.run.enrolment_id, NO_PROVIDER_PAUSE, act.reason)
        else:
            await queries.wait_longer(connection, due.run.enrolment_id, act.reason)

    async def _close(self, tx: Tx, due: Due, look: Look, step: SendStep, outcome: Outcome) -> None:
        """Write down that a message will not be sent, and go on."""
        this, visit = self._message_id(due, step), due.visit(step.step_id)
        await queries.plan_message(
            tx.connection, this, due.run, step.step_id, visit, look.person.person_id, outcome.state, outcome.reason
        )
        row = await queries.close_planned(tx.connection, this, outcome)
        tell(tx, row)
        await self._go_on(tx, due, look.plan, step, row["settled_at"])

    async def _claim_message(self, tx: Tx, due: Due, look: Look, step: SendStep, draft: Draft) -> Claimed | None:
        connection, run, lasting = tx.connection, due.run, self._parts.settings.claim_for
        this, visit = self._message_id(due, step), due.visit(step.step_id)
        person_id = look.person.person_id
        await queries.plan_message(connection, this, run, step.step_id, visit, person_id, "planned", None)
        said = await sealed(
            connection, self._parts.runtime.keys, run.lead_id, Said(draft.rendered.subject, draft.rendered.links)
        )
        claimed = await queries.claim_message(connection, this, self._claim, lasting, said, person_id)
        if claimed is None:  # the person has this visit of this step in the ledger under another message
            await self._close(tx, due, look, step, Outcome("suppressed", "the person had this already"))
            return None
        claimed_at, attempt = claimed
        tx.emit(
            MessageClaimed(
                event_id=EventId(f"message-claimed:{this}:{attempt}"),
                lead_id=run.lead_id,
                occurred_at=claimed_at,
                received_at=claimed_at,
                message_id=this,
                enrolment_id=run.enrolment_id,
                sequence_id=run.sequence_id,
                step_id=step.step_id,
                visit=visit,
                channel="email",
                person_id=person_id,
                run=run.run,
            )
        )
        return Claimed(this, run, look.plan, step, due.visits, claimed_at, attempt, draft.envelope)

    async def _hand_over(self, claimed: Claimed) -> None:
        """Call the provider, then note the outcome."""
        assert self._mailer is not None
        settings = self._parts.settings
        lapses_at = time.monotonic() + (settings.claim_for - settings.smtp_timeout).total_seconds()
        outcome = await self._mailer.deliver(claimed.envelope, lambda: time.monotonic() < lapses_at)
        failpoint("after_call_before_outcome")
        if outcome.retry and claimed.attempt >= TRIES:
            outcome = Outcome("failed", f"given up after {claimed.attempt} tries: {outcome.reason}")
        while True:
            try:
                await self._note(claimed, outcome)
                return
            except Unavailable:  # the outcome is known only here: forgetting it would make it unknown for good
                if time.monotonic() > lapses_at + settings.claim_for.total_seconds():
                    raise
                await asyncio.sleep(0.5)

    async def _note(self, claimed: Claimed, outcome: Outcome) -> None:
        async with self._parts.runtime.database.transaction() as tx:
            person_id = await people.lock_person(tx.connection, claimed.run.lead_id)
            row = await queries.settle(tx.connection, claimed.message_id, self._claim, outcome)
            if row is None:
                return
            tell(tx, row)
            if row["state"] == "bounced":
                await self._suppress_address(tx, person_id, row["settled_at"])
            due = await queries.run_before(tx.connection, claimed.run.enrolment_id, claimed.step.step_id)
            if due is None:
                return
            if row["state"] == "planned":
                pause = pause_before(claimed.attempt)
                await queries.hold_run(tx.connection, claimed.run.enrolment_id, pause, outcome.reason)
            else:
                await self._go_on(tx, due, claimed.plan, claimed.step, claimed.claimed_at)

    async def _suppress_address(self, tx: Tx, person_id: LeadId, at: datetime) -> None:
        person = await people.load_person(tx.connection, self._parts.addresses, self._parts.runtime.keys, person_id)
        address = self._parts.addresses.hash_of(person.email) if person.email else None
        await people.suppress(tx.connection, person_id, address, "bounced", at, "nurture")

    async def _go_on(self, tx: Tx, due: Due, plan: Plan, step: SendStep, at: datetime) -> None:
        """Put the run behind a message."""
        place = after(plan, step, at)
        if isinstance(place, Move):
            visits = due.visits | {step.step_id: due.visit(step.step_id)}
            await queries.move_run(tx.connection, due.run.enrolment_id, place.step_id, place.due_at, visits)
            return
        person_id = await people.lock_person(tx.connection, due.run.lead_id)
        someone = (await enrolments.meet(tx, self._parts, [person_id]))[0]
        await enrolments.end_run(tx, self._parts, someone, due.run, place.reason)

    async def _give_up_dead_claims(self) -> None:
        """A claim that fell silent may have been sent or not: it is shown, and never sent again."""
        async with self._parts.runtime.database.reading() as connection:
            dead = await queries.dead_claims(connection)
        for this, lead_id in dead:
            async with self._parts.runtime.database.transaction() as tx:
                await people.lock_person(tx.connection, lead_id)
                row = await queries.give_up(tx.connection, this, DEAD_CLAIM)
                if row is None:
                    continue
                tell(tx, row)
                log.warning("message_outcome_unknown", message_id=this)
                due = await queries.run_before(tx.connection, row["enrolment_id"], row["step_id"])
                if due is not None:
                    plan = await self._parts.catalogue.plan(tx.connection, due.run.sequence_id, due.run.version)
                    step = plan.steps[row["step_id"]]
                    assert isinstance(step, SendStep)
                    await self._go_on(tx, due, plan, step, row["claimed_at"])


def tell(tx: Tx, row: Any) -> None:
    """Tell how a message stands now."""
    SETTLED.labels(row["sequence_id"], row["state"]).inc()
    tx.emit(queries.settled(row))


async def on_claimed(event: MessageClaimed, tx: Tx, parts: Parts) -> None:
    """Our own decision, read back. What is not here was lost with a newer database: it counts as sent."""
    if not await queries.restore_message(tx.connection, event, RESTORED):
        return
    log.warning("message_restored", message_id=event.message_id)
    due = await queries.run_before(tx.connection, event.enrolment_id, event.step_id)
    if due is None:
        return
    try:
        plan = await parts.catalogue.plan(tx.connection, due.run.sequence_id, due.run.version)
    except NoSuchVersion:
        return
    step = plan.steps[event.step_id]
    assert isinstance(step, SendStep)
    place = after(plan, step, event.occurred_at)
    if isinstance(place, Move):
        visits = due.visits | {event.step_id: event.visit}
        await queries.move_run(tx.connection, event.enrolment_id, place.step_id, place.due_at, visits)


async def on_settled(event: MessageSettled, tx: Tx) -> None:
    """Our own fact, read back."""
    await queries.fold_settled(tx.connection, event)
