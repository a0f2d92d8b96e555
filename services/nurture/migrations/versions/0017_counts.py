"""What messages came to, counted as it happens, so that a report costs the same however many there were."""

from alembic import op

from shared.db import run_sql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';
-- How many messages of a step and variant stand in a state, or were answered: `name` is a state, or a kind of response
-- (people's; with _raw, machines' as well). By the quarter of an hour in which they left, since that divides the days
-- of every time zone, and by the day of UTC. Variant '' is none.
CREATE TABLE nurture.message_counts (
    sequence_id text NOT NULL,
    span text NOT NULL CHECK (span IN ('quarter', 'day')),
    at timestamptz NOT NULL,
    step_id text NOT NULL,
    variant text NOT NULL,
    name text NOT NULL,
    times bigint NOT NULL,
    PRIMARY KEY (sequence_id, span, at, step_id, variant, name)
) WITH (fillfactor = 80);

-- What is not added up yet. Whoever changes messages writes here and waits for nobody.
CREATE TABLE nurture.message_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sequence_id text NOT NULL,
    at timestamptz NOT NULL,
    step_id text NOT NULL,
    variant text NOT NULL,
    name text NOT NULL,
    times bigint NOT NULL
);
CREATE INDEX message_changes_of ON nurture.message_changes (sequence_id, at);
"""
FUNCTIONS = """
CREATE FUNCTION nurture.quarter_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN date_bin('15 minutes', at, '2000-01-01T00:00:00Z'::timestamptz);

-- When a message left, or may have; null for one that did not.
CREATE FUNCTION nurture.left_at(state text, claimed_at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN CASE WHEN state NOT IN ('planned', 'failed', 'suppressed') THEN nurture.quarter_of(claimed_at) END;

-- The same, and of one that never will when that was decided.
CREATE FUNCTION nurture.counted_at(state text, claimed_at timestamptz, settled_at timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN CASE WHEN state IN ('failed', 'suppressed') THEN nurture.quarter_of(settled_at)
            ELSE nurture.left_at(state, claimed_at) END;

-- The names under which a message counts that was responded to.
CREATE FUNCTION nurture.answers_to(message text) RETURNS SETOF text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT said.name FROM (
        SELECT kind, bool_or(automated_reason IS NULL) AS by_person FROM nurture.responses
        WHERE message_id = message AND kind IN ('email_opened', 'email_clicked', 'unsubscribed') GROUP BY kind
    ) AS answer CROSS JOIN LATERAL (VALUES (kind, by_person), (kind || '_raw', true)) AS said (name, counts)
    WHERE counts;
END;

CREATE FUNCTION nurture.count_new_messages() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
    SELECT sequence_id, step_id, coalesce(variant, ''), state, at, count(*)
    FROM told, nurture.counted_at(state, claimed_at, settled_at) AS at
    WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5;
    INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
    SELECT sequence_id, step_id, coalesce(variant, ''), name, at, count(*)
    FROM told CROSS JOIN nurture.left_at(state, claimed_at) AS at
    CROSS JOIN LATERAL nurture.answers_to(message_id) AS name
    WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END $body$;

CREATE FUNCTION nurture.count_messages() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
    SELECT sequence_id, step_id, variant, state, at, sum(sign) FROM (
        SELECT sequence_id, step_id, coalesce(variant, '') AS variant, state, 1 AS sign,
            nurture.counted_at(state, claimed_at, settled_at) AS at FROM told
        UNION ALL
        SELECT sequence_id, step_id, coalesce(variant, ''), state, -1,
            nurture.counted_at(state, claimed_at, settled_at) FROM untold
    ) AS changed
    WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5 HAVING sum(sign) <> 0;
    -- What was responded to counts where the message does.
    INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
    SELECT sequence_id, step_id, variant, name, at, sum(sign) FROM (
        SELECT told.message_id, told.sequence_id, told.step_id, place.* FROM told JOIN untold USING (message_id)
        CROSS JOIN LATERAL (VALUES
            (coalesce(told.variant, ''), nurture.left_at(told.state, told.claimed_at), 1),
            (coalesce(untold.variant, ''), nurture.left_at(untold.state, untold.claimed_at), -1)
        ) AS place (variant, at, sign)
        WHERE (told.variant, nurture.left_at(told.state, told.claimed_at))
            IS DISTINCT FROM (untold.variant, nurture.left_at(untold.state, untold.claimed_at))
    ) AS moved CROSS JOIN LATERAL nurture.answers_to(message_id) AS name
    WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5 HAVING sum(sign) <> 0;
    RETURN NULL;
END $body$;
"""
# A message counts once under a kind, however many responses there are. Those that come at once wait for each other.
COUNT_RESPONSES = """
CREATE FUNCTION nurture.{name}() RETURNS trigger LANGUAGE plpgsql AS $body$
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
            WHERE kind IN ('email_opened', 'email_clicked', 'unsubscribed') GROUP BY message_id, kind
        ) AS answer CROSS JOIN LATERAL (VALUES (kind, by_person), (kind || '_raw', true)) AS said (name, counts)
        WHERE counts
    ) AS changed JOIN nurture.messages USING (message_id) CROSS JOIN nurture.left_at(state, claimed_at) AS at
    WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5 HAVING sum(sign) <> 0;
    RETURN NULL;
END $body$;
"""
CHANGED = "UNION ALL SELECT message_id, kind, automated_reason FROM untold"
TRIGGERS = """
CREATE TRIGGER count_new AFTER INSERT ON nurture.messages REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.count_new_messages();
CREATE TRIGGER count_changed AFTER UPDATE ON nurture.messages REFERENCING OLD TABLE AS untold NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.count_messages();
CREATE TRIGGER count_new AFTER INSERT ON nurture.responses REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.count_new_responses();
CREATE TRIGGER count_changed AFTER UPDATE ON nurture.responses REFERENCING OLD TABLE AS untold NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.count_responses();
"""
# What there is already; nobody writes meanwhile, since the triggers' lock is held.
FILL = """
INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
SELECT sequence_id, step_id, coalesce(variant, ''), state, at, count(*)
FROM nurture.messages, nurture.counted_at(state, claimed_at, settled_at) AS at
WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5;
INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
SELECT sequence_id, step_id, coalesce(variant, ''), name, at, count(*)
FROM nurture.messages CROSS JOIN nurture.left_at(state, claimed_at) AS at
CROSS JOIN LATERAL nurture.answers_to(message_id) AS name
WHERE at IS NOT NULL GROUP BY 1, 2, 3, 4, 5;
"""


def upgrade() -> None:
    """Make the tables, count what there is, and go on counting."""
    counting = [
        COUNT_RESPONSES.format(name=name, and_before=before)
        for name, before in (("count_new_responses", ""), ("count_responses", CHANGED))
    ]
    for statements in (TABLES, FUNCTIONS, *counting, TRIGGERS, FILL):
        run_sql(op, statements)
