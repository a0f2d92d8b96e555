"""Stages, assignments and the stories of deals, the marks that are counted of them, and their sums.

What an existing installation has read already is counted once its projection is rebuilt.
"""

from alembic import op

from shared.db import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A new installation has all this already, from the projection as it stands.
PROJECTION = """
SET LOCAL lock_timeout = '10s';
SET LOCAL search_path TO attribution_projection;
ALTER TABLE assignments
    ALTER COLUMN lead_id DROP NOT NULL, ALTER COLUMN rep_id DROP NOT NULL, ALTER COLUMN revision DROP NOT NULL,
    ALTER COLUMN assigned_at DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS teams text[], ADD COLUMN IF NOT EXISTS accepted_at timestamptz,
    ADD COLUMN IF NOT EXISTS rejected_at timestamptz, ADD COLUMN IF NOT EXISTS expired_at timestamptz;

CREATE TABLE IF NOT EXISTS stage_changes (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    stage text NOT NULL,
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (lead_id, revision)
);

CREATE TABLE IF NOT EXISTS deal_steps (
    deal_id text NOT NULL,
    revision bigint NOT NULL,
    at timestamptz NOT NULL,
    status text NOT NULL,
    stage text NOT NULL,
    probability integer NOT NULL,
    value_minor bigint NOT NULL,
    currency text NOT NULL,
    recurring_minor bigint NOT NULL,
    rep_id text,
    teams text[] NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    pipeline_stages text[] NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (deal_id, revision)
);
CREATE INDEX IF NOT EXISTS deal_steps_time ON deal_steps (at);
CREATE INDEX IF NOT EXISTS deals_lead ON deals (lead_id);
CREATE INDEX IF NOT EXISTS touches_contacts ON touches (lead_id, occurred_at) WHERE NOT automated AND type IN (
    'call_attempted', 'call_connected', 'meeting_booked', 'meeting_held', 'rep_emailed', 'rep_messaged'
);

CREATE TABLE IF NOT EXISTS circumstances (
    person_id text PRIMARY KEY,
    channel text NOT NULL,
    source text NOT NULL,
    campaign text NOT NULL,
    country text NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE IF NOT EXISTS marks (
    person_id text NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    ref text NOT NULL,
    at timestamptz NOT NULL,
    rep text NOT NULL,
    teams text[] NOT NULL,
    currency text NOT NULL,
    number integer NOT NULL,
    value_minor bigint NOT NULL,
    weighted_minor bigint NOT NULL,
    lapse bigint,
    bucket smallint NOT NULL,
    PRIMARY KEY (person_id, kind, ref, step, at)
);
CREATE INDEX IF NOT EXISTS marks_time ON marks (kind, at);
CREATE INDEX IF NOT EXISTS marks_pending ON marks (at) WHERE kind = 'sla' AND step = 'pending';
CREATE INDEX IF NOT EXISTS marks_ref ON marks (ref) WHERE ref <> '';

CREATE TABLE IF NOT EXISTS mark_sums (
    kind text NOT NULL,
    dimension text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    key text NOT NULL,
    step text NOT NULL,
    bucket smallint NOT NULL,
    currency text NOT NULL,
    number bigint NOT NULL,
    value_minor numeric NOT NULL,
    weighted_minor numeric NOT NULL,
    seconds bigint NOT NULL,
    PRIMARY KEY (kind, dimension, level, day, key, step, bucket, currency)
) WITH (fillfactor = 70);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, PROJECTION)
