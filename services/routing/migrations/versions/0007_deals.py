"""Deals with their pipelines, products, stakeholders and past; hand-offs to customer success and their tasks."""

from alembic import op

from shared.db import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE deals
    ADD COLUMN pipeline_id text NOT NULL DEFAULT 'default',
    ADD COLUMN expected_close_on date,
    ADD COLUMN contract_starts_on date,
    ADD COLUMN contract_ends_on date,
    ADD COLUMN lines jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN stakeholders jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN renewal_of text,
    ADD COLUMN lost_reason text,
    ADD COLUMN passed text[] NOT NULL DEFAULT '{}',
    -- What is written besides name and reason, in clear where the lead has no key: by kind, and by revision.
    ADD COLUMN notes jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN remarks jsonb NOT NULL DEFAULT '{}',
    -- When it was told that nothing had changed for too long; a change takes it away.
    ADD COLUMN rot_told_at timestamptz;
UPDATE deals SET passed = ARRAY(
    SELECT stage FROM deal_history AS step WHERE step.deal_id = deals.deal_id AND step.status = 'open'
    GROUP BY stage ORDER BY min(revision)
);
CREATE INDEX deals_silent ON deals (changed_at) WHERE status = 'open' AND rot_told_at IS NULL;
CREATE INDEX deals_closed ON deals (pipeline_id, closed_at DESC) WHERE status <> 'open';
CREATE INDEX deals_expected ON deals (expected_close_on) WHERE status = 'open';
CREATE INDEX deals_won ON deals (closed_at) WHERE status = 'won';
CREATE INDEX deals_contract_ends ON deals (contract_ends_on) WHERE status = 'won' AND contract_ends_on IS NOT NULL;
CREATE INDEX deals_renewal_of ON deals (renewal_of) WHERE renewal_of IS NOT NULL;
CREATE INDEX deals_stakeholders ON deals USING gin (stakeholders jsonb_path_ops) WHERE stakeholders <> '[]';

-- What was told with each change, and by whom; what a deal is follows from all of them in order of time. Of a change
-- that an earlier version stored only its outcome is known.
ALTER TABLE deal_history ADD COLUMN told jsonb, ADD COLUMN by_whom text;

CREATE TABLE handoffs (
    deal_id text PRIMARY KEY,
    lead_id text NOT NULL,
    revision integer NOT NULL,
    pipeline_id text NOT NULL,
    required text[] NOT NULL,
    owner_id text,
    owner_why text NOT NULL,
    queue text,
    strategy text,
    won_at timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    retry_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX handoffs_lead ON handoffs (lead_id);
CREATE INDEX handoffs_in_order ON handoffs (opened_at, deal_id);
CREATE INDEX handoffs_owner ON handoffs (owner_id, opened_at);
CREATE INDEX handoffs_retry ON handoffs (retry_at) WHERE retry_at IS NOT NULL;

CREATE TABLE handoff_tasks (
    deal_id text NOT NULL,
    task_id text NOT NULL,
    place integer NOT NULL,
    title text NOT NULL,
    due_at timestamptz NOT NULL,
    completed_at timestamptz,
    completed_by text,
    PRIMARY KEY (deal_id, task_id)
) WITH (fillfactor = 80);
CREATE INDEX handoff_tasks_due ON handoff_tasks (due_at, deal_id, task_id) WHERE completed_at IS NULL;
"""


def upgrade() -> None:
    """Add the columns, with the stages that deals have passed, and the tables of hand-offs."""
    run_sql(op, TABLES)
