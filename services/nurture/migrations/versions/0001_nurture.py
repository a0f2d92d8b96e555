"""Nurture's tables: the runtime's, the projection, and what nurture owns."""

import json

import psycopg
from alembic import op

from services.nurture.sequences.catalogue import shipped
from shared.db import run_sql, schema_sql

revision = "0001"
down_revision = None

OWNED = """
-- One row per run holds its next step only; what was done is in the ledger.
CREATE TABLE enrolments (
    enrolment_id text PRIMARY KEY,
    sequence_id text NOT NULL,
    version integer NOT NULL,
    lead_id text NOT NULL,
    run integer NOT NULL,
    cause_event_id text NOT NULL,
    triggered_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    active boolean NOT NULL DEFAULT true,
    reason text,
    ended_at timestamptz,
    step_id text NOT NULL,
    due_at timestamptz NOT NULL,
    visits jsonb NOT NULL DEFAULT '{}',
    claim text,
    hold text,
    holds integer NOT NULL DEFAULT 0,
    UNIQUE (sequence_id, lead_id, run),
    UNIQUE (sequence_id, cause_event_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
CREATE UNIQUE INDEX enrolments_one_at_a_time ON enrolments (sequence_id, lead_id) WHERE active;
CREATE INDEX enrolments_due ON enrolments (due_at) WHERE active;
CREATE INDEX enrolments_version ON enrolments (sequence_id, version) WHERE active;
CREATE INDEX enrolments_held ON enrolments (hold) WHERE active AND hold IS NOT NULL;
CREATE INDEX enrolments_lead ON enrolments (lead_id);

-- Facts that would have started a sequence had more been known of the person: of each id the latest.
CREATE TABLE pending_triggers (
    sequence_id text NOT NULL,
    lead_id text NOT NULL,
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    sealed text,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (sequence_id, lead_id)
);
CREATE INDEX pending_triggers_lead ON pending_triggers (lead_id);
CREATE INDEX pending_triggers_expiry ON pending_triggers (expires_at);

-- The ledger. A row stands here, claimed, before the provider is called; that step is never claimed again.
CREATE TABLE messages (
    message_id text PRIMARY KEY,
    enrolment_id text NOT NULL,
    sequence_id text NOT NULL,
    version integer NOT NULL,
    run integer NOT NULL,
    step_id text NOT NULL,
    visit integer NOT NULL,
    channel text NOT NULL,
    lead_id text NOT NULL,
    person_id text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('planned', 'sent', 'failed', 'suppressed', 'unknown', 'delivered', 'bounced')),
    reason text,
    subject text,
    links text[] NOT NULL DEFAULT '{}',
    attempts integer NOT NULL DEFAULT 0,
    claim text,
    claimed_at timestamptz,
    claim_until timestamptz,
    sent_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX messages_once ON messages (person_id, sequence_id, run, step_id, visit)
    WHERE state <> 'suppressed';
CREATE INDEX messages_lead ON messages (lead_id, created_at DESC);
CREATE INDEX messages_person ON messages (person_id, created_at DESC);
CREATE INDEX messages_enrolment ON messages (enrolment_id) WHERE state = 'planned';
CREATE INDEX messages_claimed ON messages (claim_until) WHERE state = 'planned' AND claim_until IS NOT NULL;

-- Opens, clicks and unsubscriptions that were told as touches, so that each is told once.
CREATE TABLE responses (
    touch_id text PRIMARY KEY,
    message_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who must not be written to. The address stands as a keyed hash.
CREATE TABLE suppressions (
    suppression_id text PRIMARY KEY,
    lead_id text,
    address_hash text,
    channel text NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL,
    origin text NOT NULL
);
CREATE INDEX suppressions_lead ON suppressions (lead_id);
CREATE INDEX suppressions_address ON suppressions (address_hash);
"""


WELCOME = """
INSERT INTO rule_documents (kind, name, version, document, author) VALUES ('sequence', 'welcome', 1, %s, 'throughline')
"""
ACTIVATE = """
INSERT INTO rule_activations (kind, name, version, author) VALUES ('sequence', 'welcome', 1, 'throughline')
"""


def upgrade() -> None:
    """Make everything, and install the sequence that comes with the product."""
    run_sql(op, schema_sql("nurture"))
    run_sql(op, OWNED)
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    connection.execute(WELCOME, [json.dumps(shipped("welcome"))])
    connection.execute(ACTIVATE)
