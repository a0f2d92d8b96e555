"""What was told, decided and done about a person, to be explained."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import asyncpg

from shared.db import Connection
from shared.events import ConsentChanged, StageChanged
from shared.identity import Member
from shared.ids import LeadId, MessageId

PUT_CONSENT_WORDS = """
INSERT INTO consent_words (event_id, lead_id, channel, purpose, state, at, origin, reason)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[],
    $8::text[]) AS told (event_id, lead_id, channel, purpose, state, at, origin, reason)
WHERE NOT EXISTS (SELECT FROM identity_erased AS gone WHERE gone.lead_id = told.lead_id)
ON CONFLICT DO NOTHING
"""
PUT_STAGE_WORDS = """
INSERT INTO stage_words AS known (lead_id, revision, stage, previous, at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[])
    AS told (lead_id, revision, stage, previous, at)
WHERE NOT EXISTS (SELECT FROM identity_erased AS gone WHERE gone.lead_id = told.lead_id)
ON CONFLICT (lead_id, revision) DO UPDATE
SET stage = excluded.stage, previous = excluded.previous, at = excluded.at
WHERE (known.at, known.stage) < (excluded.at, excluded.stage)
"""
FORGET = """
WITH consents AS (DELETE FROM consent_words WHERE lead_id = ANY($1)),
     answers AS (UPDATE messages SET decision = decision - 'attempts' WHERE lead_id = ANY($1) AND decision ? 'attempts')
DELETE FROM stage_words WHERE lead_id = ANY($1)
"""
SAVE_DECISIONS = """
UPDATE messages SET decision = told.decision || jsonb_strip_nulls(
    jsonb_build_object('holds', messages.decision->'holds', 'attempts', messages.decision->'attempts'))
FROM unnest($1::text[], $2::jsonb[]) AS told (message_id, decision) WHERE messages.message_id = told.message_id
"""
HOLDS_OF = "SELECT decision->'holds' FROM messages WHERE message_id = $1"
ADD_HOLD = """
UPDATE messages SET decision = $2::jsonb || jsonb_strip_nulls(
    jsonb_build_object('holds', $3::jsonb, 'attempts', decision->'attempts'))
WHERE message_id = $1
"""
ADD_ATTEMPT = """
UPDATE messages SET decision = jsonb_set(coalesce(decision, '{}'), '{attempts}',
    coalesce(decision->'attempts', '[]') || $2::jsonb)
WHERE message_id = $1
"""
TAKE_STEPS = """
INSERT INTO steps_taken (enrolment_id, step_id, next_step_id, because)
SELECT enrolment_id, step_id, next_step_id, because
FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[]) WITH ORDINALITY
    AS taken (enrolment_id, step_id, next_step_id, because, place)
ORDER BY place
"""


MESSAGE = """
SELECT message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id, state, reason,
    attempts, claimed_at, sent_at, created_at, settled_at, decision
FROM messages WHERE message_id = $1
"""
RUN = """
SELECT enrolment_id, sequence_id, version, lead_id, run, active, reason, cause_event_id, triggered_at, started_at,
    ended_at, step_id, due_at, hold
FROM enrolments WHERE enrolment_id = $1
"""
TURNS = "SELECT at, step_id, next_step_id, because FROM steps_taken WHERE enrolment_id = $1 ORDER BY number"
MESSAGES_OF_RUN = """
SELECT message_id, step_id, visit, state, reason, created_at, sent_at, settled_at
FROM messages WHERE enrolment_id = $1 ORDER BY created_at, message_id
"""
RESPONSES = """
SELECT kind, number, at, automated_reason FROM responses
WHERE message_id = $1 AND kind NOT IN ('trap', 'unsubscribed') ORDER BY at, touch_id
"""
WORD = """
SELECT origin, reason FROM consent_words
WHERE lead_id = ANY($1) AND channel = $2 AND state = $3 AND at = $4 ORDER BY purpose = $5 DESC, event_id LIMIT 1
"""
_OF_SEQUENCE = """jsonb_build_object('enrolment_id', {row}.enrolment_id, 'sequence_id', {row}.sequence_id,
    'sequence_version', {row}.version, 'run', {row}.run, 'sequence', (SELECT document->>'name' FROM rule_documents
        WHERE kind = 'sequence' AND name = {row}.sequence_id AND version = {row}.version))"""
_OF_RUN = _OF_SEQUENCE.format(row="run")
_OF_MESSAGE = (
    _OF_SEQUENCE.format(row="message")
    + """ || jsonb_build_object('message_id', message.message_id, 'step_id', message.step_id,
    'visit', message.visit, 'channel', message.channel)"""
)
# A message is looked at before it is entered in the ledger: it was planned, then held.
# Facts of an id count while it was the person's; what nurture did is the person's by any of their ids.
HAPPENED = f"""
WITH member AS (
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS member (id, since, until)
), run AS (
    SELECT * FROM enrolments WHERE lead_id = ANY($1)
), message AS (
    SELECT * FROM messages WHERE lead_id = ANY($1) OR person_id = ANY($1)
), told AS (
    SELECT lead_id, at, 'consent_' || state AS kind, event_id AS name, reason AS because,
        jsonb_build_object('channel', channel, 'purpose', purpose, 'origin', origin) AS details
    FROM consent_words WHERE lead_id = ANY($1)
    UNION ALL
    SELECT lead_id, at, 'stage_changed', lead_id || ':' || revision, NULL,
        jsonb_build_object('stage', stage, 'previous', previous)
    FROM stage_words WHERE lead_id = ANY($1)
    UNION ALL
    SELECT lead_id, at, type, touch_id, NULL, jsonb_build_object('origin', origin, 'meeting_at', meeting_at)
    FROM takeover_touches WHERE lead_id = ANY($1) AND NOT automated
    UNION ALL
    SELECT lead_id, assigned_at, 'lead_assigned', assignment_id, NULL, jsonb_build_object('rep_id', rep_id)
    FROM takeover_assignments WHERE lead_id = ANY($1) AND assigned_at IS NOT NULL
    UNION ALL
    SELECT lead_id, settled_at, 'assignment_' || state, assignment_id, NULL, jsonb_build_object('rep_id', rep_id)
    FROM takeover_assignments WHERE lead_id = ANY($1) AND settled_at IS NOT NULL
    UNION ALL
    SELECT lead_id, opened_at, 'deal_opened', deal_id, NULL, jsonb_build_object('deal_id', deal_id)
    FROM takeover_deals WHERE lead_id = ANY($1)
    UNION ALL
    SELECT lead_id, closed_at, 'deal_' || status, deal_id, NULL, jsonb_build_object('deal_id', deal_id)
    FROM takeover_deals WHERE lead_id = ANY($1) AND closed_at IS NOT NULL
), happened AS (
    SELECT told.at, told.kind, told.name, told.because, told.details
    FROM told JOIN member ON member.id = told.lead_id
        AND (member.since IS NULL OR told.at >= member.since) AND (member.until IS NULL OR told.at < member.until)
    UNION ALL
    SELECT started_at, 'run_started', enrolment_id, NULL,
        {_OF_RUN} || jsonb_build_object('triggered_at', triggered_at, 'cause_event_id', cause_event_id) FROM run
    UNION ALL
    SELECT ended_at, 'run_ended', enrolment_id, reason, {_OF_RUN} FROM run WHERE ended_at IS NOT NULL
    UNION ALL
    SELECT taken.at, 'run_turned', taken.number::text, NULL, {_OF_RUN} || jsonb_build_object(
        'step_id', taken.step_id, 'next_step_id', taken.next_step_id, 'turn', taken.because->'turn')
    FROM run JOIN steps_taken AS taken USING (enrolment_id) WHERE taken.step_id <> ''
    UNION ALL
    SELECT created_at, 'message_planned', message_id, NULL, {_OF_MESSAGE} FROM message
    UNION ALL
    SELECT greatest((held.span->>'since')::timestamptz, created_at + interval '1 microsecond'),
        'message_held', message_id || ':' || held.number,
        held.span->>'reason', {_OF_MESSAGE} || jsonb_build_object(
            'until', held.span->'until', 'last_looked_at', held.span->'last', 'looks', held.span->'looks')
    FROM message, jsonb_array_elements(message.decision->'holds') WITH ORDINALITY AS held (span, number)
    UNION ALL
    SELECT sent_at, 'message_sent', message_id, NULL, {_OF_MESSAGE} FROM message WHERE sent_at IS NOT NULL
    UNION ALL
    SELECT settled_at, 'message_' || state, message_id, reason, {_OF_MESSAGE} FROM message
    WHERE state NOT IN ('planned', 'sent')
    UNION ALL
    SELECT response.at, response.kind, response.touch_id, response.automated_reason,
        {_OF_MESSAGE} || jsonb_build_object('automated', response.automated_reason IS NOT NULL)
    FROM message JOIN responses AS response USING (message_id)
    WHERE response.kind NOT IN ('trap', 'unsubscribed')
    UNION ALL
    SELECT since, 'suppression_added', suppression_id, reason,
        jsonb_build_object('channel', channel, 'origin', origin)
    FROM suppressions WHERE lead_id = ANY($1) OR address_hash = ANY($4)
    UNION ALL
    SELECT since, 'pause_asked_for', pause_id, NULL,
        jsonb_build_object('pauses', reach, 'until', until, 'author', author) FROM pauses WHERE lead_id = ANY($1)
    UNION ALL
    SELECT released_at, 'pause_ended', pause_id, NULL, jsonb_build_object('author', released_by)
    FROM pauses WHERE lead_id = ANY($1) AND released_at IS NOT NULL
    UNION ALL
    SELECT at, 'pause_ended', pause_id, NULL, jsonb_build_object('author', author)
    FROM pause_releases WHERE lead_id = ANY($1)
)
SELECT at, kind, name, because, jsonb_strip_nulls(details) AS details FROM happened
"""
NEWEST_FIRST = f"""{HAPPENED}
WHERE $5::timestamptz IS NULL OR (at, kind, name) < ($5, $6, $7) ORDER BY at DESC, kind DESC, name DESC LIMIT $8
"""
OLDEST_FIRST = f"""{HAPPENED}
WHERE $5::timestamptz IS NULL OR (at, kind, name) > ($5, $6, $7) ORDER BY at, kind, name LIMIT $8
"""
ORDERS = {"newest": NEWEST_FIRST, "oldest": OLDEST_FIRST}


async def save_consent_words(connection: Connection, events: Sequence[ConsentChanged]) -> None:
    """Keep words about consent; nothing of an erased person."""
    names = ("event_id", "lead_id", "channel", "purpose", "state", "occurred_at", "origin", "reason")
    ordered = sorted(events, key=lambda one: one.event_id)
    await connection.execute(PUT_CONSENT_WORDS, *([getattr(one, name) for one in ordered] for name in names))


async def save_stage_words(connection: Connection, events: Sequence[StageChanged]) -> None:
    """Keep stages; nothing of an erased person."""
    newest = {(one.lead_id, one.revision): one for one in sorted(events, key=lambda one: (one.occurred_at, one.stage))}
    ordered = [newest[key] for key in sorted(newest)]
    names = ("lead_id", "revision", "stage", "previous", "occurred_at")
    await connection.execute(PUT_STAGE_WORDS, *([getattr(one, name) for one in ordered] for name in names))


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Delete what is told of a person."""
    await connection.execute(FORGET, lead_ids)


async def save_decisions(connection: Connection, decisions: Mapping[MessageId, dict[str, Any]]) -> None:
    """Keep how the last decisions about messages were reached, beside what held them before and what was answered."""
    ordered = sorted(decisions)
    await connection.execute(SAVE_DECISIONS, ordered, [decisions[this] for this in ordered])


async def holds_of(connection: Connection, message_id: MessageId) -> list[dict[str, Any]]:
    """What has held a message so far."""
    holds: list[dict[str, Any]] | None = await connection.fetchval(HOLDS_OF, message_id)
    return holds or []


async def save_holds(
    connection: Connection, message_id: MessageId, decision: dict[str, Any], holds: list[dict[str, Any]]
) -> None:
    """Keep what holds a message, and how that was found."""
    await connection.execute(ADD_HOLD, message_id, decision, holds)


async def add_attempt(connection: Connection, message_id: MessageId, attempt: dict[str, Any]) -> None:
    """Keep what a provider answered, where that was not the end of it."""
    await connection.execute(ADD_ATTEMPT, message_id, attempt)


async def take_steps(connection: Connection, taken: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Keep where runs went at steps that decide, of each in its order."""
    await connection.execute(
        TAKE_STEPS,
        [enrolment_id for enrolment_id, _ in taken],
        [step["step_id"] for _, step in taken],
        [step["next_step_id"] for _, step in taken],
        [step["because"] for _, step in taken],
    )


async def happened(  # noqa: PLR0913  # which page of whose past
    connection: Connection,
    family: Sequence[Member],
    addresses: Sequence[str],
    order: Literal["newest", "oldest"],
    place: tuple[datetime, str, str] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """What happened to a person behind a place, in order. `addresses` are hashes."""
    rows: list[asyncpg.Record] = await connection.fetch(
        ORDERS[order],
        [member.lead_id for member in family],
        [member.since for member in family],
        [member.until for member in family],
        addresses,
        *(place or (None, None, None)),
        limit,
    )
    return rows


async def message(connection: Connection, message_id: str) -> asyncpg.Record | None:
    """A message with how it was decided; None when there is no such one."""
    row: asyncpg.Record | None = await connection.fetchrow(MESSAGE, message_id)
    return row


async def run(connection: Connection, enrolment_id: str) -> asyncpg.Record | None:
    """A run; None when there is no such one."""
    row: asyncpg.Record | None = await connection.fetchrow(RUN, enrolment_id)
    return row


async def turns_of(connection: Connection, enrolment_id: str) -> list[asyncpg.Record]:
    """How a run began, and where it went where it had a choice, in order."""
    rows: list[asyncpg.Record] = await connection.fetch(TURNS, enrolment_id)
    return rows


async def messages_of_run(connection: Connection, enrolment_id: str) -> list[asyncpg.Record]:
    """The messages of a run, in order."""
    rows: list[asyncpg.Record] = await connection.fetch(MESSAGES_OF_RUN, enrolment_id)
    return rows


async def responses_to(connection: Connection, message_id: str) -> list[asyncpg.Record]:
    """Opens and clicks of a message, machines' as well, in order."""
    rows: list[asyncpg.Record] = await connection.fetch(RESPONSES, message_id)
    return rows


async def word_of(  # noqa: PLR0913  # what names a word
    connection: Connection, ids: Sequence[LeadId], channel: str, state: str, at: datetime, purpose: str
) -> asyncpg.Record | None:
    """Who told a word about consent, and why."""
    row: asyncpg.Record | None = await connection.fetchrow(WORD, ids, channel, state, at, purpose)
    return row
