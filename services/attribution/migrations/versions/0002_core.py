"""What every version of a model gives, the paths to conversions, and their sums."""

import psycopg
from alembic import op

from services.attribution.models.custom import STORE
from services.attribution.models.domain import SHIPPED, TOTALS
from shared.db import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A new installation has all this already, from the projection as it stands.
PROJECTION = """
SET LOCAL lock_timeout = '10s';
SET LOCAL search_path TO attribution_projection;
ALTER TABLE leads ADD COLUMN IF NOT EXISTS country text, ADD COLUMN IF NOT EXISTS account_id text;
ALTER TABLE deals ADD COLUMN IF NOT EXISTS rep_id text;
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM information_schema.columns
        WHERE table_schema = 'attribution_projection' AND table_name = 'credits' AND column_name = 'model'
    ) THEN
        DROP TABLE credits, credit_days;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS combos (
    combo_id bigint PRIMARY KEY,
    channel text NOT NULL,
    source text NOT NULL,
    medium text NOT NULL,
    campaign text NOT NULL,
    content text NOT NULL,
    landing_page text NOT NULL,
    touch_type text NOT NULL,
    uses bigint NOT NULL
) WITH (fillfactor = 70);
INSERT INTO combos VALUES (
    0, '(unattributed)', '(unattributed)', '(unattributed)', '(unattributed)', '(unattributed)', '(unattributed)',
    '(unattributed)', 0
) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS paths (
    conversion_id text PRIMARY KEY,
    person_id text NOT NULL,
    touch_ids text[] NOT NULL,
    origins text[] NOT NULL,
    combos bigint[] NOT NULL,
    times timestamptz[] NOT NULL,
    lead_place integer,
    deal_place integer,
    conversion_type text NOT NULL,
    currency text NOT NULL,
    value_minor bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    day date NOT NULL,
    country text NOT NULL,
    account text NOT NULL,
    rep text NOT NULL
);
CREATE INDEX IF NOT EXISTS paths_time ON paths (occurred_at);

CREATE TABLE IF NOT EXISTS credits (
    run integer NOT NULL,
    conversion_id text NOT NULL,
    units bigint[] NOT NULL,
    value_minor bigint[] NOT NULL,
    PRIMARY KEY (conversion_id, run)
);

CREATE TABLE IF NOT EXISTS credit_sums (
    run integer NOT NULL,
    basis text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    combo_id bigint NOT NULL,
    units bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (run, basis, level, day, currency, conversion_type, combo_id)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS conversion_sums (
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    country text NOT NULL,
    account text NOT NULL,
    rep text NOT NULL,
    conversions bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (level, day, currency, conversion_type, country, account, rep)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS assignments (
    assignment_id text PRIMARY KEY,
    lead_id text NOT NULL,
    rep_id text NOT NULL,
    revision bigint NOT NULL,
    assigned_at timestamptz NOT NULL,
    due_at timestamptz
);
CREATE INDEX IF NOT EXISTS assignments_lead ON assignments (lead_id, assigned_at);
"""
OWNED = """
SET LOCAL search_path TO attribution, attribution_projection;
DROP TABLE model_backfills;

-- A version of a model: built by a walk through all conversions (`after` is the last one done), then serving, and taken
-- away when another serves in its place. `projection` is the one that was walked.
CREATE TABLE model_runs (
    run integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    version integer NOT NULL,
    splits boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('building', 'serving', 'retiring')),
    projection smallint NOT NULL,
    after text NOT NULL DEFAULT '',
    done bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    walked_at timestamptz,
    finished_at timestamptz
);
CREATE UNIQUE INDEX model_runs_serving ON model_runs (model) WHERE state = 'serving';
CREATE UNIQUE INDEX model_runs_building ON model_runs (model) WHERE state = 'building';
"""
# Where there are conversions already, they are credited before the models answer.
RUN = """
INSERT INTO model_runs (model, version, splits, state, projection, total, finished_at)
SELECT %s, %s, %s, CASE WHEN count(lead_id) = 0 THEN 'serving' ELSE 'building' END, min(projections.version),
    count(lead_id), CASE WHEN count(lead_id) = 0 THEN clock_timestamp() END
FROM projections LEFT JOIN conversions ON true
"""
ACTIVE = """
SELECT DISTINCT ON (name) name, version FROM rule_activations WHERE kind = %s AND effective_at <= clock_timestamp()
ORDER BY name, effective_at DESC, sequence DESC
"""


def upgrade() -> None:
    """Make the tables, and the first run of each model."""
    run_sql(op, PROJECTION + OWNED)
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    for name, model in SHIPPED.items():
        connection.execute(RUN, [name, model.version, name not in TOTALS])
    for name, version in connection.execute(ACTIVE, [STORE.kind]).fetchall():
        connection.execute(RUN, [name, version, True])
