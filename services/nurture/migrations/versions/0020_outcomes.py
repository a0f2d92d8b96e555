"""Which messages replies and conversions followed, counted as it turns out, so that a report need not look for it."""

from alembic import op

from shared.db import run_sql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';
-- The last message of a sequence before each reply and conversion, within 30 days, as it was counted last.
CREATE TABLE nurture.outcomes (
    kind text NOT NULL CHECK (kind IN ('replied', 'conversions')),
    fact_id text NOT NULL,
    sequence_id text NOT NULL,
    lead_id text NOT NULL,
    at timestamptz NOT NULL,
    step_id text NOT NULL,
    variant text NOT NULL,
    currency text NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (kind, fact_id, sequence_id)
);
CREATE INDEX outcomes_lead ON nurture.outcomes (lead_id);

-- Ids of which something was told that may change this. Whoever tells writes here and waits for nobody.
CREATE TABLE nurture.outcome_turns (
    turn_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ids text[] NOT NULL
);
CREATE INDEX IF NOT EXISTS replies_lead ON nurture_projection.replies (lead_id);
"""
COUNT_OUTCOMES = """
CREATE FUNCTION nurture.count_outcomes() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO nurture.message_changes (sequence_id, step_id, variant, name, at, times)
    SELECT sequence_id, step_id, variant, said.name, at,
        sum(said.times) * CASE TG_OP WHEN 'DELETE' THEN -1 ELSE 1 END
    FROM told CROSS JOIN LATERAL (VALUES (kind, 1::bigint), ('revenue ' || currency, value_minor)) AS said (name, times)
    WHERE said.times <> 0 GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END $body$;
"""
# A message that is being handed over is looked for by whoever finds somebody who did something meanwhile.
NOTE_MESSAGES = """
CREATE FUNCTION nurture.note_new_messages() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO nurture.outcome_turns (ids)
    SELECT array_agg(DISTINCT lead_id) FROM told WHERE nurture.left_at(state, claimed_at) IS NOT NULL
    HAVING count(*) > 0;
    RETURN NULL;
END $body$;

CREATE FUNCTION nurture.note_messages() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO nurture.outcome_turns (ids)
    SELECT array_agg(DISTINCT told.lead_id) FROM told JOIN untold USING (message_id)
    WHERE NOT (untold.state = 'planned' AND untold.claim_until IS NOT NULL)
      AND coalesce(nurture.left_at(told.state, told.claimed_at), nurture.left_at(untold.state, untold.claimed_at))
          IS NOT NULL
      AND (told.variant, told.claimed_at, nurture.left_at(told.state, told.claimed_at))
          IS DISTINCT FROM (untold.variant, untold.claimed_at, nurture.left_at(untold.state, untold.claimed_at))
    HAVING count(*) > 0;
    RETURN NULL;
END $body$;
"""
TRIGGERS = """
CREATE TRIGGER count_new AFTER INSERT ON nurture.outcomes REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.count_outcomes();
CREATE TRIGGER count_gone AFTER DELETE ON nurture.outcomes REFERENCING OLD TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.count_outcomes();
CREATE TRIGGER note_new AFTER INSERT ON nurture.messages REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.note_new_messages();
CREATE TRIGGER note_changed AFTER UPDATE ON nurture.messages REFERENCING OLD TABLE AS untold NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION nurture.note_messages();
"""
# Everybody who did something already; until they are looked at, reports look at them themselves.
FILL = """
INSERT INTO nurture.outcome_turns (ids)
SELECT array_agg(lead_id) FROM (
    SELECT lead_id, row_number() OVER (ORDER BY lead_id) / 250 AS turn FROM (
        SELECT lead_id FROM nurture_projection.milestones WHERE kind = 'conversion_recorded'
        UNION
        SELECT lead_id FROM nurture_projection.replies
    ) AS someone
) AS placed GROUP BY turn;
"""


def upgrade() -> None:
    """Make the tables, and go through what there is."""
    for statements in (TABLES, COUNT_OUTCOMES, NOTE_MESSAGES, TRIGGERS, FILL):
        run_sql(op, statements)
