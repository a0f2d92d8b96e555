"""People in a sequence to measure nurture with: known, consenting, with sealed profiles, and runs that are due."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from bench.facts import lead_id
from services.nurture.sequences.catalogue import SEQUENCES
from shared.ids import LeadId
from shared.service import Runtime

HELLO = {
    "subject": "Hello {{ lead.first_name | default('you') }}",
    "html": "<p>Hello {{ lead.first_name | default('you') }},</p><p>how do people at {{ lead.company | default('your "
    "company') }} find out which of their leads are worth a call today?</p>"
    "<p><a href='{{ site_url }}/tour'>See how it works</a></p>",
}
SEQUENCE: dict[str, Any] = {
    "name": "Bench",
    "trigger": "event.type == 'form_submitted'",
    "active": True,
    "purpose": "marketing",
    "steps": [
        {"id": "choose", "branch": [{"when": "stage == 'mql' || lead.country == 'DE'", "to": "rest"}], "else": "hello"},
        {"id": "rest", "wait": {"days": 3}},
        {"id": "hello", "send": {"channel": "email", "template": HELLO}},
    ],
}
PEOPLE = """
WITH given AS (SELECT * FROM unnest($1::text[], $2::text[]) AS given (lead_id, sealed)), known AS (
    INSERT INTO profiles (lead_id, revision, captured_at, fields, personal)
    SELECT lead_id, 1, now(), '{"country": "DE", "company": "Harbor Lane Studio"}', sealed FROM given
)
INSERT INTO consents (lead_id, channel, state, at) SELECT lead_id, 'email', 'granted', now() FROM given
"""
RUNS = """
INSERT INTO enrolments (enrolment_id, sequence_id, version, lead_id, run, cause_event_id, triggered_at, started_at,
    step_id, due_at)
SELECT $1::text || place, $1, 1, coalesce(($2::text[])[place], $1::text || place), 1, $1::text || place, now(), now(),
    'hello', now() + interval '1 day' + make_interval(secs => place % 86400)
FROM generate_series(1, $3::integer) AS place
"""
DUE = """
UPDATE enrolments SET step_id = $2, due_at = now(), visits = '{}', claim = NULL, hold = NULL, active = true, run = $3,
    triggered_at = now()
WHERE sequence_id = $1
"""
FRESH = """
INSERT INTO feed_watermarks (topic, partition, source, at)
SELECT topic, partition, source, now() + interval '1 hour'
FROM (VALUES ('leads', 'capture'), ('leads', 'nurture'), ('messages', 'nurture')) AS feeds (topic, source),
    generate_series(0, $1::integer - 1) AS partition
"""


async def prepare(runtime: Runtime, due: int, waiting: int) -> None:
    """So many people whose runs will be due in one sequence, and so many runs that wait in it and in another."""
    ids = [lead_id(number) for number in range(due)]
    async with runtime.database.transaction() as tx:
        await tx.connection.execute("SET LOCAL statement_timeout = 0")
        for name in ("due", "waits"):
            await SEQUENCES.save(tx.connection, SEQUENCE, "bench", name)
        await tx.connection.execute(PEOPLE, ids, await _sealed(runtime, tx.connection, ids))
        await tx.connection.execute(RUNS, "due", ids, due)
        await tx.connection.execute(RUNS, "waits", [], waiting)
        await tx.connection.execute(FRESH, runtime.settings.topic_partitions)


async def _sealed(runtime: Runtime, connection: Any, ids: list[LeadId]) -> list[str]:
    ciphers, _ = await runtime.keys.ciphers(connection, ids, datetime.now(UTC))
    runtime.keys.remember(ciphers)
    return [
        runtime.keys.seal(
            one, ciphers[one], orjson.dumps({"email": f"{one}@bench.example", "first_name": "Nora"})
        ).decode()
        for one in ids
    ]


async def make_due(runtime: Runtime, step_id: str, number: int) -> None:
    """Put all runs of the first sequence before a step, due now, as if they were in it for the so-many-th time."""
    async with runtime.database.reading() as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(DUE, "due", step_id, number, timeout=120)
        await connection.execute("VACUUM ANALYZE enrolments, messages", timeout=timedelta(minutes=5).total_seconds())
