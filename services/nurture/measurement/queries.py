"""What messages came to, over the period that is asked for, but for what is counted as it happens (`counts.py`), or as
it turns out (`outcomes.py`).

Conversions, replies and what attribution credits are folded here from others' facts. A conversion or reply belongs to
whoever its id turned out to be, as does a message; so a report is right as soon as a merge is folded.
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple
from datetime import datetime, timedelta

import asyncpg

from services.nurture.enrolments.domain import WITHDRAWN as TAKEN_BACK
from services.nurture.measurement.domain import Outcome
from shared.db import Connection
from shared.events import CreditsChanged, RefundRecorded, TouchRecorded
from shared.ids import LeadId, SequenceId

PUT_REFUNDS = """
INSERT INTO refunds AS known (conversion_id, origin, refund_id, position, amount_minor, currency)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
ON CONFLICT (conversion_id, origin, refund_id) DO UPDATE
SET position = excluded.position, amount_minor = excluded.amount_minor, currency = excluded.currency
WHERE known.position < excluded.position
"""
PUT_REPLIES = """
INSERT INTO replies AS known (origin, touch_id, lead_id, position, occurred_at, automated)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::boolean[])
ON CONFLICT (origin, touch_id) DO UPDATE
SET lead_id = excluded.lead_id, position = excluded.position, occurred_at = excluded.occurred_at,
    automated = excluded.automated
WHERE known.position < excluded.position
"""
PUT_EARNINGS = """
INSERT INTO earnings AS known (conversion_id, model, revision, converted_at, currency, touch_ids, value_minor)
SELECT $1, $2, $3, $4, $5, $6, $7
ON CONFLICT (conversion_id, model) DO UPDATE
SET revision = excluded.revision, converted_at = excluded.converted_at, currency = excluded.currency,
    touch_ids = excluded.touch_ids, value_minor = excluded.value_minor
WHERE known.revision < excluded.revision
"""
LEFT_US = "claimed_at IS NOT NULL AND state NOT IN ('planned', 'failed', 'suppressed')"
"""The message left, or may have."""
ANSWERS = """(
    SELECT responses.message_id, kind, automated_reason IS NULL AND withdrawals.touch_id IS NULL AS by_person
    FROM responses LEFT JOIN withdrawals
        ON withdrawals.touch_id = responses.touch_id AND withdrawals.origin = 'nurture'
    WHERE kind IS NOT NULL
) AS answer"""
"""Responses to messages, and whether neither we nor anybody else found out that a machine gave them."""
# Whose a fact of an anonymous id is: of the person linked last before it, else of the first one linked. Found for all
# facts together: two look-ups for each of them cost more than all the rest of a report.
_LINKED = """linked AS MATERIALIZED (
    SELECT DISTINCT ON (fact_id) fact_id, link.lead_id
    FROM said JOIN identity_links AS link ON link.anonymous_lead_id = said.lead_id
    ORDER BY fact_id, link.at <= said.occurred_at DESC, CASE WHEN link.at <= said.occurred_at THEN link.at END DESC,
        CASE WHEN link.at <= said.occurred_at THEN link.lead_id END DESC, link.at, link.lead_id
)"""


def converted(condition: str) -> str:
    """Conversions that stand, less what was given back of each, as a common table expression `happened`.

    Asked for the type that they stand by, the planner would take them for one in two hundred, and lay people and what
    they did side by side one by one.
    """
    return f"""said AS MATERIALIZED (
    SELECT fact_id, lead_id, occurred_at, fields->>'currency' AS currency,
        (fields->>'value_minor')::bigint AS value_minor
    FROM milestones AS said
    WHERE kind = 'conversion_recorded' AND fields->>'type' <> '{TAKEN_BACK}' AND {condition}
),
{_LINKED},
given_back AS MATERIALIZED (
    SELECT conversion_id AS fact_id, refunds.currency, sum(amount_minor) AS minor
    FROM refunds JOIN said ON fact_id = conversion_id GROUP BY conversion_id, refunds.currency
),
happened AS MATERIALIZED (
    SELECT fact_id, coalesce(linked.lead_id, said.lead_id) AS lead_id, occurred_at, currency,
        greatest(0, value_minor - coalesce(minor, 0))::bigint AS value_minor
    FROM said LEFT JOIN linked USING (fact_id) LEFT JOIN given_back USING (fact_id, currency)
)"""


def replied(condition: str) -> str:
    """Replies of people, as a common table expression `happened`."""
    return f"""said AS MATERIALIZED (
    SELECT said.origin || ' ' || said.touch_id AS fact_id, lead_id, occurred_at
    FROM replies AS said
    WHERE NOT automated AND {condition} AND NOT EXISTS (
        SELECT FROM withdrawals WHERE withdrawals.origin = said.origin AND withdrawals.touch_id = said.touch_id)
),
{_LINKED},
happened AS MATERIALIZED (
    SELECT fact_id, coalesce(linked.lead_id, said.lead_id) AS lead_id, occurred_at, NULL::text AS currency,
        0::bigint AS value_minor
    FROM said LEFT JOIN linked USING (fact_id)
)"""


def owners_of(named: str) -> str:
    """The persons that ids turned out to be, of those that did, as a common table expression `owners`."""
    return f"""walked AS (
    SELECT named.lead_id AS origin, alias.into_id AS here, 1 AS depth
    FROM ({named}) AS named JOIN identity_aliases AS alias ON alias.lead_id = named.lead_id AND alias.active
    UNION ALL
    SELECT walked.origin, alias.into_id, walked.depth + 1
    FROM walked JOIN identity_aliases AS alias ON alias.lead_id = walked.here AND alias.active WHERE walked.depth < 64
),
owners AS MATERIALIZED (
    SELECT DISTINCT ON (origin) origin AS lead_id, here AS person_id FROM walked ORDER BY origin, depth DESC
)"""


def _after_messages(happened: str) -> str:
    """What happened within the window after messages of a sequence: each under the last message before it.

    Messages and what happened are each read once and laid side by side, by person: to look for the messages of
    everybody who did something costs more, and most of them got none of the sequence.
    """
    return f"""
WITH RECURSIVE {happened},
gone AS NOT MATERIALIZED (
    SELECT lead_id, step_id, variant, claimed_at FROM messages
    WHERE sequence_id = $1 AND {LEFT_US} AND claimed_at >= $2 AND claimed_at < $3::timestamptz + $4::interval
),
{owners_of("SELECT lead_id FROM happened UNION ALL SELECT lead_id FROM gone")},
followed AS (
    SELECT DISTINCT ON (fact_id) currency, value_minor, step_id, variant, claimed_at
    FROM gone LEFT JOIN owners AS recipient USING (lead_id)
    JOIN (
        SELECT happened.*, coalesce(owners.person_id, lead_id) AS person_id
        FROM happened LEFT JOIN owners USING (lead_id)
    ) AS theirs ON theirs.person_id = coalesce(recipient.person_id, gone.lead_id)
        AND claimed_at <= occurred_at AND claimed_at > occurred_at - $4::interval
    ORDER BY fact_id, claimed_at DESC
)
SELECT step_id, variant, currency, count(*) AS times, sum(value_minor)::bigint AS value_minor
FROM followed WHERE claimed_at < $3 GROUP BY step_id, variant, currency
"""


_IN_REACH = "said.occurred_at >= $2 AND said.occurred_at < $3::timestamptz + $4::interval"
CONVERSIONS = _after_messages(converted(_IN_REACH))
REPLIES = _after_messages(replied(_IN_REACH))
# Messages that count as opened, say, only until it is heeded who was found out to be a machine by somebody else.
WITHDRAWN = f"""
SELECT step_id, variant, kind AS name, count(*) AS times FROM (
    SELECT DISTINCT message_id, kind FROM withdrawals JOIN responses USING (touch_id)
    WHERE withdrawals.origin = 'nurture' AND kind <> 'trap' AND automated_reason IS NULL
) AS doubted JOIN messages USING (message_id)
WHERE sequence_id = $1 AND claimed_at >= $2 AND claimed_at < $3 AND {LEFT_US} AND NOT EXISTS (
    SELECT FROM responses AS other
    WHERE other.message_id = doubted.message_id AND other.kind = doubted.kind AND automated_reason IS NULL
      AND NOT EXISTS (SELECT FROM withdrawals WHERE origin = 'nurture' AND withdrawals.touch_id = other.touch_id)
)
GROUP BY step_id, variant, kind
"""
CREDITED = f"""
SELECT step_id, variant, model, currency, sum(part.minor)::bigint AS value_minor
FROM (
    SELECT model, currency, given.touch_id, given.minor
    FROM earnings CROSS JOIN LATERAL unnest(touch_ids, value_minor) AS given (touch_id, minor)
    WHERE converted_at >= $2 AND touch_ids <> '{{}}'
) AS part JOIN responses USING (touch_id) JOIN messages USING (message_id)
WHERE sequence_id = $1 AND claimed_at >= $2 AND claimed_at < $3 AND {LEFT_US}
GROUP BY step_id, variant, model, currency
"""
PLAN_FOR_THIS = "SET LOCAL plan_cache_mode = force_custom_plan"
NOTE = "INSERT INTO outcome_turns (ids) VALUES ($1)"
# One at a time: of two that look at the same person the later one must see what the earlier one wrote.
ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('nurture/outcomes', 0))"
TAKE_TURNS = """
DELETE FROM outcome_turns WHERE turn_id IN (
    SELECT turn_id FROM outcome_turns ORDER BY turn_id LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING ids
"""
ACTIVE_AFTER = """
SELECT lead_id FROM (
    (SELECT DISTINCT lead_id FROM milestones
     WHERE kind = 'conversion_recorded' AND lead_id > $1 AND occurred_at > clock_timestamp() - $2::interval
     ORDER BY lead_id LIMIT $3)
    UNION
    (SELECT DISTINCT lead_id FROM replies
     WHERE lead_id > $1 AND occurred_at > clock_timestamp() - $2::interval ORDER BY lead_id LIMIT $3)
) AS someone ORDER BY lead_id LIMIT $3
"""
WAITING = "SELECT DISTINCT unnest(ids) AS lead_id FROM outcome_turns ORDER BY 1"
HAPPENED = """
SELECT 'conversions' AS kind, fact_id, lead_id, occurred_at, fields->>'currency' AS currency,
    greatest(0, (fields->>'value_minor')::bigint - coalesce((
        SELECT sum(amount_minor) FROM refunds WHERE conversion_id = fact_id AND refunds.currency = fields->>'currency'
    ), 0))::bigint AS value_minor
FROM milestones
WHERE kind = 'conversion_recorded' AND fields->>'type' = 'conversion_recorded' AND lead_id = ANY($1)
UNION ALL
SELECT 'replied', said.origin || ' ' || said.touch_id, lead_id, occurred_at, '', 0
FROM replies AS said
WHERE NOT automated AND lead_id = ANY($1) AND NOT EXISTS (
    SELECT FROM withdrawals WHERE withdrawals.origin = said.origin AND withdrawals.touch_id = said.touch_id)
"""
SENT_TO = f"""
SELECT lead_id, sequence_id, step_id, coalesce(variant, '') AS variant, claimed_at, state = 'planned' AS under_way
FROM messages
WHERE lead_id = ANY($1) AND (({LEFT_US}) OR (state = 'planned' AND claim_until IS NOT NULL))
"""
OUTCOME = "kind, fact_id, sequence_id, lead_id, at, step_id, variant, currency, value_minor"
OUTCOMES_OF = f"""
SELECT {OUTCOME} FROM outcomes WHERE lead_id = ANY($1) OR (kind IN ('replied', 'conversions') AND fact_id = ANY($2))
"""
TAKE_AWAY = """
DELETE FROM outcomes USING unnest($1::text[], $2::text[], $3::text[]) AS gone (its_kind, its_fact, its_sequence)
WHERE kind = its_kind AND fact_id = its_fact AND sequence_id = its_sequence
"""
ADD = f"""
INSERT INTO outcomes ({OUTCOME})
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[],
    $8::text[], $9::bigint[])
"""
CONVERTED_BY = "SELECT DISTINCT lead_id FROM milestones WHERE kind = 'conversion_recorded' AND fact_id = ANY($1)"
REPLIED_BY = """
SELECT DISTINCT lead_id FROM replies JOIN unnest($1::text[], $2::text[]) AS told (from_origin, its_id)
    ON origin = from_origin AND touch_id = its_id
"""


async def note(connection: Connection, ids: Collection[LeadId]) -> None:
    """Something was told of these ids that may change what messages came to."""
    if ids:
        await connection.execute(NOTE, sorted(set(ids)))


async def active_after(connection: Connection, after: str, lately: timedelta, limit: int) -> list[LeadId]:
    """Some of the ids that replies and conversions of late came with, in their order."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(ACTIVE_AFTER, after, lately, limit)]


async def converted_by(connection: Connection, conversion_ids: Sequence[str]) -> list[LeadId]:
    """The ids that conversions came with."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(CONVERTED_BY, conversion_ids)]


async def replied_by(connection: Connection, touches: Sequence[tuple[str, str]]) -> list[LeadId]:
    """The ids that replies came with, by origin and touch."""
    named = [origin for origin, _ in touches], [touch_id for _, touch_id in touches]
    return [LeadId(row["lead_id"]) for row in await connection.fetch(REPLIED_BY, *named)]


async def take_turns(connection: Connection, limit: int) -> list[list[str]]:
    """Take ids of which something was told, and be the only one who counts until the transaction ends."""
    await connection.execute(ALONE)
    return [row["ids"] for row in await connection.fetch(TAKE_TURNS, limit)]


async def waiting(connection: Connection) -> list[LeadId]:
    """The ids of which something was told and that are not looked at yet."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(WAITING)]


async def happened(connection: Connection, ids: Sequence[LeadId]) -> list[asyncpg.Record]:
    """Replies and conversions that came with these ids."""
    rows: list[asyncpg.Record] = await connection.fetch(HAPPENED, ids)
    return rows


async def sent_to(connection: Connection, ids: Collection[LeadId]) -> list[asyncpg.Record]:
    """Messages that left to these ids, and those that are being handed over."""
    rows: list[asyncpg.Record] = await connection.fetch(SENT_TO, sorted(ids))
    return rows


async def outcomes_of(connection: Connection, ids: Sequence[LeadId], facts: Sequence[str]) -> set[Outcome]:
    """What was counted of these ids and facts."""
    return {Outcome(*row.values()) for row in await connection.fetch(OUTCOMES_OF, ids, facts)}


async def move_outcomes(connection: Connection, gone: Collection[Outcome], new: Collection[Outcome]) -> None:
    """Take away what counts no more, and add what does now."""
    if gone:
        keys = zip(*((one.kind, one.fact_id, one.sequence_id) for one in gone), strict=True)
        await connection.execute(TAKE_AWAY, *(list(column) for column in keys))
    if new:
        columns = zip(*(astuple(one) for one in new), strict=True)
        await connection.execute(ADD, *(list(column) for column in columns))


async def save_refunds(connection: Connection, events: Sequence[RefundRecorded]) -> None:
    """Keep what was given back; of corrections the one received last."""
    newest = {
        (event.conversion_id, event.origin, event.refund_id): event
        for event in sorted(events, key=lambda event: event.position)
    }
    rows = [newest[key] for key in sorted(newest)]
    names = ("conversion_id", "origin", "refund_id", "position", "amount_minor", "currency")
    await connection.execute(PUT_REFUNDS, *([getattr(row, name) for row in rows] for name in names))


async def save_replies(connection: Connection, events: Sequence[TouchRecorded]) -> None:
    """Keep people's replies; of corrections the one received last."""
    newest = {(event.origin, event.touch_id): event for event in sorted(events, key=lambda event: event.position)}
    rows = [newest[key] for key in sorted(newest)]
    names = ("origin", "touch_id", "lead_id", "position", "occurred_at", "automated")
    if rows:
        await connection.execute(PUT_REPLIES, *([getattr(row, name) for row in rows] for name in names))


async def save_earnings(connection: Connection, event: CreditsChanged) -> None:
    """Keep what a conversion's credits say of touches of ours; where no touch is named, nothing."""
    ours = [credit for credit in event.credits if credit.origin == "nurture" and credit.touch_id is not None]
    await connection.execute(
        PUT_EARNINGS,
        event.conversion_id,
        event.model,
        event.revision,
        event.converted_at,
        event.currency,
        [credit.touch_id for credit in ours],
        [credit.value_minor for credit in ours],
    )


async def plan_for_this(connection: Connection) -> None:
    """Plan each statement of the transaction for its own period: one plan for any period is one for a short one."""
    await connection.execute(PLAN_FOR_THIS)


async def read(
    connection: Connection, statement: str, sequence_id: SequenceId, span: tuple[datetime, datetime], *more: object
) -> list[asyncpg.Record]:
    """The rows of one of the statements above about a sequence and a period."""
    rows: list[asyncpg.Record] = await connection.fetch(statement, sequence_id, *span, *more)
    return rows
