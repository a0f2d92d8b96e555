"""Clicks on links in text messages count as those in emails do: whatever is not a trap is an answer."""

from alembic import op

from shared.db import run_sql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

ANSWERS = """
SET LOCAL lock_timeout = '5s';
CREATE OR REPLACE FUNCTION nurture.answers_to(message text) RETURNS SETOF text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT said.name FROM (
        SELECT kind, bool_or(automated_reason IS NULL) AS by_person FROM nurture.responses
        WHERE message_id = message AND kind <> 'trap' GROUP BY kind
    ) AS answer CROSS JOIN LATERAL (VALUES (kind, by_person), (kind || '_raw', true)) AS said (name, counts)
    WHERE counts;
END;
"""
COUNT_RESPONSES = """
CREATE OR REPLACE FUNCTION nurture.{name}() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    concerned text[] := ARRAY(SELECT DISTINCT message_id FROM told);
BEGIN
    PERFORM FROM nurture.messages WHERE message_id = ANY (concerned) ORDER BY message_id FOR NO KEY UPDATE;
    INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
    SELECT sequence_id, step_id, coalesce(variant, ''), name, at, sum(sign) FROM (
        SELECT message_id, name, 1 AS sign FROM unnest(concerned) AS message_id, nurture.answers_to(message_id) AS name
        UNION ALL
        SELECT message_id, said.name, -1 FROM (
            SELECT message_id, kind, bool_or(automated_reason IS NULL) AS by_person FROM (
                SELECT message_id, kind, automated_reason FROM nurture.responses
                WHERE message_id = ANY (concerned) AND touch_id NOT IN (SELECT touch_id FROM told)
                {and_before}
            ) AS earlier
            WHERE kind <> 'trap' GROUP BY message_id, kind
        ) AS answer CROSS JOIN LATERAL (VALUES (kind, by_person), (kind || '_raw', true)) AS said (name, counts)
        WHERE counts
    ) AS changed JOIN nurture.messages USING (message_id) CROSS JOIN nurture.left_at(state, claimed_at) AS at
    WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5 HAVING sum(sign) <> 0;
    RETURN NULL;
END $body$;
"""
CHANGED = "UNION ALL SELECT message_id, kind, automated_reason FROM untold"


def upgrade() -> None:
    """Count every kind of answer."""
    counting = [
        COUNT_RESPONSES.format(name=name, and_before=before)
        for name, before in (("count_new_responses", ""), ("count_responses", CHANGED))
    ]
    for statements in (ANSWERS, *counting):
        run_sql(op, statements)
