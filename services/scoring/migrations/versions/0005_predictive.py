"""The predictive score: what was learnt, and when deals were opened and closed."""

from alembic import op

from shared.db import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = """
SET LOCAL lock_timeout = '10s';
SET LOCAL search_path TO scoring_projection;
ALTER TABLE deals ADD COLUMN IF NOT EXISTS opened_at timestamptz, ADD COLUMN IF NOT EXISTS closed_at timestamptz;
SET LOCAL search_path TO scoring;

CREATE TABLE trainings (
    training_id text PRIMARY KEY,
    author text NOT NULL,
    state text NOT NULL,
    reason text,
    version integer,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    alive_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX trainings_open ON trainings (asked_at) WHERE state IN ('queued', 'running');
CREATE INDEX trainings_in_order ON trainings (asked_at);

-- What was learnt from deals, never overwritten; `model` is described by predictive/domain.py.
CREATE TABLE predictive_models (
    version integer PRIMARY KEY,
    author text NOT NULL,
    trained_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deals integer NOT NULL,
    won integer NOT NULL,
    model json NOT NULL,
    quality json NOT NULL
);

-- Which version counts: the last row's. `by_hand` keeps newer versions from taking over by themselves.
CREATE TABLE predictive_activations (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version integer REFERENCES predictive_models,
    author text NOT NULL,
    by_hand boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, STATEMENTS)
