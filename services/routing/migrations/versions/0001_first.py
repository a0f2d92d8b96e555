"""Routing's tables: the runtime's, the projection, and what routing owns."""

from alembic import op

from shared.db import run_sql, schema_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OWNED = """
-- What routing owns: reps and deals as they were told to it, and the decisions it took.

CREATE TABLE reps (
    rep_id text PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    territories text[] NOT NULL,
    skills text[] NOT NULL,
    teams text[] NOT NULL,
    seniority integer,
    weight integer NOT NULL,
    capacity integer,
    time_zone text NOT NULL,
    working_hours jsonb,
    time_off jsonb NOT NULL,
    active boolean NOT NULL DEFAULT true,
    open_leads integer NOT NULL DEFAULT 0,
    last_assigned_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX reps_email ON reps (email);
CREATE INDEX reps_in_order ON reps (created_at, rep_id);

-- Locked by whoever gives leads to reps: turns, capacity and load are counted over all queues, so one at a time.
CREATE TABLE dispatcher (
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
INSERT INTO dispatcher DEFAULT VALUES;

-- What each member of a queue is owed, in leads, as a fraction; see assignments/turns.py.
CREATE TABLE turns (
    queue_id text NOT NULL,
    rep_id text NOT NULL,
    numerator bigint NOT NULL,
    denominator bigint NOT NULL,
    PRIMARY KEY (queue_id, rep_id)
) WITH (fillfactor = 70);

CREATE TABLE assignments (
    assignment_id text PRIMARY KEY,
    lead_id text NOT NULL,
    person_id text NOT NULL,
    revision integer NOT NULL,
    rep_id text NOT NULL,
    queue text NOT NULL,
    strategy text NOT NULL,
    state text NOT NULL,
    assigned_at timestamptz NOT NULL,
    due_at timestamptz,
    touch_due_at timestamptz,
    rules_version integer NOT NULL,
    trace jsonb NOT NULL,
    cause_id text,
    entry_id text,
    reason text,
    settled_at timestamptz,
    ended_at timestamptz,
    end_reason text,
    inputs jsonb,
    company text
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX assignments_cause ON assignments (cause_id);
CREATE UNIQUE INDEX assignments_current ON assignments (person_id) WHERE ended_at IS NULL;
CREATE INDEX assignments_person ON assignments (person_id, revision);
CREATE INDEX assignments_lead ON assignments (lead_id);
CREATE INDEX assignments_rep ON assignments (rep_id, assigned_at, assignment_id);
CREATE INDEX assignments_in_order ON assignments (assigned_at, assignment_id);
CREATE INDEX assignments_company ON assignments (company, assigned_at) WHERE company IS NOT NULL;
CREATE INDEX assignments_due ON assignments (due_at) WHERE state = 'offered' AND ended_at IS NULL;

-- Answers read back from Kafka before the assignment they belong to; see assignments/recovery.py.
CREATE TABLE early_answers (
    assignment_id text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    reason text,
    PRIMARY KEY (assignment_id, state)
);

-- Leads that wait for a rep, or for the profile that a decision needs (`awaits` is its revision).
CREATE TABLE holds (
    person_id text PRIMARY KEY,
    lead_id text NOT NULL,
    cause_id text NOT NULL,
    entry_id text NOT NULL,
    reason text NOT NULL,
    trace jsonb NOT NULL,
    rules_version integer NOT NULL,
    awaits integer,
    since timestamptz NOT NULL,
    retry_at timestamptz,
    attempts integer NOT NULL DEFAULT 1
) WITH (fillfactor = 70);
CREATE INDEX holds_retry ON holds (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX holds_in_order ON holds (since, person_id);

CREATE TABLE deals (
    deal_id text PRIMARY KEY,
    lead_id text NOT NULL,
    revision integer NOT NULL,
    external_id text,
    name text NOT NULL,
    status text NOT NULL,
    stage text NOT NULL,
    probability integer NOT NULL,
    value_minor bigint NOT NULL,
    currency text NOT NULL,
    recurring_minor bigint,
    rep_id text,
    pipeline_version integer NOT NULL,
    opened_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    closed_at timestamptz,
    reason text,
    conversion_id text,
    opened_with jsonb
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX deals_external_id ON deals (external_id);
CREATE INDEX deals_lead ON deals (lead_id, opened_at);
CREATE INDEX deals_rep ON deals (rep_id, opened_at);
CREATE INDEX deals_stage ON deals (stage, opened_at);
CREATE INDEX deals_in_order ON deals (opened_at, deal_id);

-- How a deal stood after each change.
CREATE TABLE deal_history (
    deal_id text NOT NULL,
    revision integer NOT NULL,
    at timestamptz NOT NULL,
    status text NOT NULL,
    stage text NOT NULL,
    probability integer NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (deal_id, revision)
);
"""


def upgrade() -> None:
    """Make everything."""
    run_sql(op, schema_sql("routing") + OWNED)
