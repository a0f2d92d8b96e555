"""Decisions about stages, attempts to reach a person, and what caused a stage change."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"

PROJECTION = """
SET LOCAL search_path TO scoring_projection;
ALTER TABLE scores ADD COLUMN IF NOT EXISTS settled_at timestamptz;
ALTER TABLE scores ADD COLUMN IF NOT EXISTS connected_at bigint;
ALTER TABLE scores ADD COLUMN IF NOT EXISTS attempts bigint[] NOT NULL DEFAULT '{}';

CREATE TABLE IF NOT EXISTS past_profiles (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    captured_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    personal text,
    PRIMARY KEY (lead_id, revision)
);
SET LOCAL search_path TO scoring;
"""

OWNED = """
-- `ruled` is the stage by the rules while `decision`, a copy of the latest about the person, stands against them.
ALTER TABLE standings ADD COLUMN ruled text;
ALTER TABLE standings ADD COLUMN decision jsonb;
ALTER TABLE standings ADD COLUMN erased boolean NOT NULL DEFAULT false;

ALTER TABLE stage_changes ADD COLUMN move text;
ALTER TABLE stage_changes ADD COLUMN until timestamptz;
ALTER TABLE stage_changes ADD COLUMN decision_id text;
ALTER TABLE stage_changes ADD COLUMN touch jsonb;

-- Decisions about the stage of a lead, under the id it had then. A note is sealed with the key of that id.
CREATE TABLE stage_decisions (
    lead_id text NOT NULL,
    decision_id text NOT NULL,
    kind text NOT NULL,
    stage text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz,
    because text NOT NULL,
    reason text NOT NULL,
    sealed text,
    of_record boolean NOT NULL DEFAULT false,
    author text NOT NULL,
    ended_at timestamptz,
    end_reason text NOT NULL DEFAULT '',
    ended_by text,
    PRIMARY KEY (lead_id, decision_id)
);
"""


def upgrade() -> None:
    """Add them."""
    run_sql(op, PROJECTION)
    run_sql(op, OWNED)
