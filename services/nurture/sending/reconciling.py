"""How a message of which nobody knew whether it left becomes known: a provider reports, is asked, or a person decides.

None of this sends anything twice: a message is handed over again only to a provider that takes it once, or because a
person decides so (`resending.py`).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from services.nurture.channels.channel import Channel, Reconciling
from services.nurture.errors import CannotResend, NoSuchMessage, OutcomeKnown
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.sending.domain import OPTINS, REPORTS
from services.nurture.sending.queries import MESSAGE
from services.nurture.sending.resending import Resender
from services.nurture.sending.settling import tell
from shared.db import Connection, Tx
from shared.events import ConsentChannel, MessageReported
from shared.ids import LeadId, MessageId
from shared.smtp import Outcome

Decision = Literal["sent", "failed", "resend"]
LOOKED_UP_AT_ONCE = 20
RULE = "nobody has heard of it since: the rule counts it as sent"
# Of two reports the one that says more counts, whichever came first; what is under way is told once the call is over.
REPORTED = f"""
WITH before AS (
    SELECT message_id AS id, state AS was FROM messages
    WHERE message_id = $1 AND attempts > 0
      AND (reported IS NULL OR array_position($3::text[], reported) < array_position($3::text[], $2)) FOR UPDATE
)
UPDATE messages SET reported = $2,
    state = CASE WHEN claim_until IS NULL THEN $2 ELSE state END,
    reason = CASE WHEN claim_until IS NULL THEN $4 ELSE reason END,
    settled_at = CASE WHEN claim_until IS NULL THEN clock_timestamp() ELSE settled_at END,
    sent_at = CASE WHEN claim_until IS NULL AND $2 <> 'failed' THEN coalesce(sent_at, claimed_at) ELSE sent_at END,
    look_up_at = NULL, resend_at = CASE WHEN claim_until IS NULL THEN NULL ELSE resend_at END
FROM before WHERE message_id = id RETURNING {MESSAGE}, claim_until IS NULL AND was <> $2 AS told
"""
# By our own id, by the Message-ID made of it, by the id under which the provider took it.
FIND = """
SELECT message_id, lead_id FROM messages WHERE message_id = split_part($1, '@', 1)
UNION ALL
SELECT message_id, lead_id FROM messages WHERE provider_id = $1
LIMIT 1
"""
TO_LOOK_UP = f"""
UPDATE messages SET look_ups = look_ups + 1,
    look_up_at = clock_timestamp() + least(interval '1 minute' * 3 ^ look_ups, interval '6 hours')
WHERE message_id IN (
    SELECT message_id FROM messages
    WHERE state = 'unknown' AND look_up_at <= statement_timestamp() AND channel = ANY($1)
    ORDER BY look_up_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING {MESSAGE}
"""
OVERDUE = """
SELECT message_id, lead_id FROM messages WHERE state = 'unknown' AND settled_at <= statement_timestamp() - $1::interval
ORDER BY created_at LIMIT 500
"""
RESOLVE = f"""
UPDATE messages SET state = $2, reason = $3, settled_at = clock_timestamp(), look_up_at = NULL,
    provider = coalesce($4, provider), provider_id = coalesce($5, provider_id),
    sent_at = CASE WHEN $2 IN ('sent', 'delivered') THEN claimed_at ELSE sent_at END,
    claim = CASE WHEN $2 = 'planned' THEN NULL ELSE claim END,
    resend_at = CASE WHEN $2 = 'planned' THEN clock_timestamp() END
WHERE message_id = $1 AND state = 'unknown' RETURNING {MESSAGE}
"""
MESSAGE_OF = f"SELECT {MESSAGE} FROM messages WHERE message_id = $1"
NOTE_DECISION = "INSERT INTO message_resolutions (message_id, decision, actor, reason) VALUES ($1, $2, $3, $4)"
DECISIONS = "SELECT decision, actor, reason, at FROM message_resolutions WHERE message_id = $1 ORDER BY resolution_id"


async def on_reported(event: MessageReported, tx: Tx) -> None:
    """A provider tells what became of a message: it need not be one of ours, and may be told twice and in any order."""
    state = REPORTS.get(event.event)
    if state is None or event.message_id is None:
        return
    found = await tx.connection.fetchrow(FIND, event.message_id)
    if found is None:
        return
    await people.lock_person(tx.connection, LeadId(found["lead_id"]))
    reason = f"the provider reports: {event.event}" + (f" ({event.code})" if event.code else "")
    ranks = list(dict.fromkeys(REPORTS.values()))
    row = await tx.connection.fetchrow(REPORTED, found["message_id"], state, ranks, reason)
    if row is not None and row["told"]:
        tell(tx, [row])


class Reconciler:
    """Asks providers about unknown messages, and carries out the rule for those of which no news comes."""

    def __init__(
        self, parts: Parts, channels: Mapping[ConsentChannel, Channel], resender: Resender | None = None
    ) -> None:
        self._parts = parts
        self._resender = resender
        self._asked = {name: channel for name, channel in channels.items() if isinstance(channel, Reconciling)}

    async def run(self) -> None:
        """Ask about those whose turn it is."""
        async with self._parts.runtime.database.reading() as connection:
            rows = await connection.fetch(TO_LOOK_UP, list(self._asked), LOOKED_UP_AT_ONCE)
        for row in rows:
            this = MessageId(row["message_id"])
            outcome = await self._asked[row["channel"]].look_up(this, row["claimed_at"])
            if outcome is None and self._resender is not None:
                outcome = await self._resender.repeat(row)
            if outcome is not None and outcome.state in ("sent", "delivered", "bounced", "failed"):
                await self._become_known(this, LeadId(row["lead_id"]), outcome)
        after = self._parts.settings.unknown_counts_as_sent_after
        if after is not None:
            await self._apply_rule(after)

    async def _apply_rule(self, after: timedelta) -> None:
        async with self._parts.runtime.database.reading() as connection:
            rows = await connection.fetch(OVERDUE, after)
        for row in rows:
            await self._become_known(MessageId(row["message_id"]), LeadId(row["lead_id"]), Outcome("sent", RULE))

    async def _become_known(self, this: MessageId, lead_id: LeadId, outcome: Outcome) -> None:
        async with self._parts.runtime.database.transaction() as tx:
            await people.lock_person(tx.connection, lead_id)
            by = (outcome.provider, outcome.provider_id)
            row = await tx.connection.fetchrow(RESOLVE, this, outcome.state, outcome.reason, *by)
            if row is not None:
                tell(tx, [row])


async def decide_unknown(tx: Tx, this: MessageId, decision: Decision, actor: str, reason: str) -> None:
    """What a person decides about an unknown message; sending it again is a new attempt in the same row.

    Raises NoSuchMessage, OutcomeKnown where it is not unknown (any more), and CannotResend.
    """
    known = await message_of(tx.connection, this)
    await people.lock_person(tx.connection, LeadId(known["lead_id"]))
    if decision == "resend" and known["sequence_id"] == OPTINS:
        raise CannotResend("the link was not kept: the person has to submit the form again")
    state = "planned" if decision == "resend" else decision
    said = "somebody decided that it is sent again" if decision == "resend" else f"somebody decided: {decision}"
    row = await tx.connection.fetchrow(RESOLVE, this, state, said, None, None)
    if row is None:
        known = await message_of(tx.connection, this)
        raise OutcomeKnown(f"the message is {known['state']}, and only what is unknown can be resolved")
    await tx.connection.execute(NOTE_DECISION, this, decision, actor, reason)
    tell(tx, [row])


async def message_of(connection: Connection, this: MessageId) -> Any:
    """A message's row; raises NoSuchMessage."""
    row = await connection.fetchrow(MESSAGE_OF, this)
    if row is None:
        raise NoSuchMessage(f"there is no message {this}")
    return row


async def decisions_about(connection: Connection, this: MessageId) -> list[Any]:
    """What people decided about a message, in order."""
    rows: list[Any] = await connection.fetch(DECISIONS, this)
    return rows
