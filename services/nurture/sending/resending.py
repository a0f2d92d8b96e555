"""Messages that are handed over again. The run that asked for them has long gone on and is left alone.

What somebody decided to send again is a new attempt in the same row, under the same checks as the first. What may be
with a provider that takes the same message once is handed to that one again, so that it says whether it has it.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from services.nurture.channels.channel import CannotWrite, Channel, Draft, Order, Repeating
from services.nurture.enrolments.queries import RUN, as_run
from services.nurture.experiments import handlers as experiments
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person, why_not
from services.nurture.sending import queries
from services.nurture.sending.checks import Question
from services.nurture.sending.claiming import Claimed, claim_all
from services.nurture.sending.domain import OPTINS, Hold, Leave, Suppress
from services.nurture.sending.handlers import Sender
from services.nurture.sending.queries import Entry
from services.nurture.sending.settling import Runs, Settlement, tell
from services.nurture.sequences.domain import Plan, SendStep
from shared.db import Connection, Tx, one
from shared.events import ConsentChannel
from shared.faults import failpoint
from shared.identity import resolve
from shared.ids import LeadId, MessageId
from shared.smtp import Outcome

PAUSE = timedelta(minutes=1)
TAKE = """
UPDATE messages SET resend_at = clock_timestamp() + $1 WHERE message_id IN (
    SELECT message_id FROM messages
    WHERE resend_at <= statement_timestamp() AND state = 'planned' AND claim_until IS NULL
    ORDER BY resend_at LIMIT 10 FOR UPDATE SKIP LOCKED
)
RETURNING message_id, enrolment_id, step_id, visit
"""
MAY_REPEAT = """
SELECT EXISTS (
    SELECT FROM messages JOIN enrolments USING (enrolment_id)
    WHERE message_id = $1 AND claimed_at > clock_timestamp() - $2::interval
) AND NOT EXISTS (SELECT FROM message_resolutions WHERE message_id = $1)
"""
RUN_OF = f"SELECT {RUN} FROM enrolments WHERE enrolment_id = $1"
POSTPONE = "UPDATE messages SET resend_at = $2, reason = $3 WHERE message_id = $1 AND claim_until IS NULL"


@dataclass(frozen=True, slots=True)
class Again:
    """A message that is to be sent again, and what it is made of."""

    entry: Entry
    plan: Plan
    step: SendStep


class Resender:
    """Sends again what somebody decided to."""

    def __init__(self, parts: Parts, channels: Mapping[ConsentChannel, Channel], sender: Sender) -> None:
        self._parts = parts
        self._channels = channels
        self._sender = sender
        self._claim = secrets.token_hex(8)
        self._settlement = Settlement(parts, channels, self._claim, Runs(parts))

    async def run(self) -> None:
        """Send all whose turn it is."""
        database = self._parts.runtime.database
        async with database.reading() as connection:
            rows = await connection.fetch(TAKE, self._parts.settings.claim_for)
        for row in rows:
            async with database.reading() as connection:
                again = await self._again(connection, row)
                draft = await self._write(connection, again)
            async with database.transaction() as tx:
                claimed = await self._decide(tx, again, draft)
            failpoint("after_intent_before_call")
            for each in claimed:
                await self._settlement.hand_over(each)

    async def repeat(self, row: asyncpg.Record) -> Outcome | None:
        """Hand an unknown message again to the provider that may have it, if it takes it once; None: still unknown.

        Nothing is handed over that may not be sent at this moment, or that a person has decided about: how long the
        provider remembers it would be in doubt.
        """
        channel = self._channels[row["channel"]]
        if not isinstance(channel, Repeating) or row["sequence_id"] == OPTINS:
            return None
        within = channel.takes_once_for(row["provider"]) - self._parts.settings.claim_for
        lapses_at = time.monotonic() + self._parts.settings.claim_for.total_seconds()
        async with self._parts.runtime.database.reading() as connection:
            if not await connection.fetchval(MAY_REPEAT, row["message_id"], within):
                return None
            again = await self._again(connection, row)
            draft = await self._write(connection, again)
        async with self._parts.runtime.database.transaction() as tx:
            person_id = await people.lock_person(tx.connection, again.entry.run.lead_id)
            objection = await self._objection(tx.connection, again, person_id, claiming=False)
        if objection is not None or not isinstance(draft, Draft):
            return None
        outcome = await channel.repeat(row["provider"], draft, lambda: time.monotonic() < lapses_at)
        # Only that it has the message is news: what it refuses now, in other words perhaps, it may have taken before.
        return outcome if outcome is not None and outcome.state == "sent" else None

    async def _again(self, connection: Connection, row: asyncpg.Record) -> Again:
        run = as_run(await one(connection, RUN_OF, row["enrolment_id"]))
        person_id = await resolve(connection, run.lead_id)
        plan = await self._parts.catalogue.plan(connection, run.sequence_id, run.version)
        plan = await experiments.plan_for(connection, plan, await self._person(connection, person_id))
        step = plan.steps[row["step_id"]]
        assert isinstance(step, SendStep)
        this, named = MessageId(row["message_id"]), experiments.named(plan, step.step_id)
        entry = Entry(this, run, step.step_id, row["visit"], step.channel, person_id, named=named)
        return Again(entry, plan, step)

    async def _write(self, connection: Connection, again: Again) -> Draft | str | None:
        channel = self._channels.get(again.step.channel)
        if channel is None:
            return None
        person = await self._person(connection, again.entry.person_id)
        try:
            return await channel.write(Order(again.entry.message_id, again.plan, again.step, person))
        except CannotWrite as exc:
            return str(exc)

    async def _person(self, connection: Connection, person_id: LeadId) -> Person:
        return await people.load_person(connection, self._parts.addresses, self._parts.runtime.keys, person_id)

    async def _decide(self, tx: Tx, again: Again, draft: Draft | str | None) -> list[Claimed]:
        entry = again.entry
        person_id = await people.lock_person(tx.connection, entry.run.lead_id)
        standing = (await queries.standings_of(tx.connection, [entry.message_id])).get(entry.message_id)
        if standing is None or standing.state != "planned" or standing.claimed:
            return []
        objection = await self._objection(tx.connection, again, person_id)
        if isinstance(objection, Hold):
            until: datetime = objection.until or await queries.database_now(tx.connection) + PAUSE
            await tx.connection.execute(POSTPONE, entry.message_id, until, objection.reason)
        elif isinstance(objection, Suppress):
            outcome = Outcome("suppressed", objection.reason)
            tell(tx, [await queries.close_planned(tx.connection, entry.message_id, outcome)])
        elif isinstance(draft, str):
            tell(tx, [await queries.close_planned(tx.connection, entry.message_id, Outcome("failed", draft))])
        elif draft is not None:
            return await claim_all(tx, self._parts, self._claim, [(entry, draft)])
        return []

    async def _objection(
        self, connection: Connection, again: Again, person_id: LeadId, *, claiming: bool = True
    ) -> Hold | Suppress | None:
        step = again.step
        readiness = await self._sender.lookout.readiness(connection)
        unsure = readiness.consent or readiness.ledger or readiness.missing.get(step.channel)
        if unsure is not None:
            return Hold(step, unsure)
        person = await self._person(connection, person_id)
        refusal = why_not(person, again.plan.purpose, step.channel)
        if refusal is not None:
            return Suppress(step, refusal)
        family = (await people.load_families(connection, [person_id]))[person_id]
        now = await queries.database_now(connection)
        run = again.entry.run
        question = Question(connection, self._parts, again.plan, run, step, person, family, now, claiming=claiming)
        objection = await self._sender.lookout.objection(question)
        return Suppress(step, objection.reason) if isinstance(objection, Leave) else objection
