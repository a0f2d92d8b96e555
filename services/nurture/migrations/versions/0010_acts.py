"""Runs wait for moments, remember what they drew, and act; sequences move their runs, and are tried on history."""

import json

import psycopg
from alembic import op

from services.nurture.sequences.catalogue import shipped
from shared.db import run_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OWNED = """
SET LOCAL lock_timeout = '5s';
-- In which wait a run stands and since when; when what its steps wait for occurred last; what was drawn at splits.
ALTER TABLE enrolments ADD COLUMN waits_at text, ADD COLUMN waiting_since timestamptz,
    ADD COLUMN met jsonb NOT NULL DEFAULT '{}', ADD COLUMN variants jsonb NOT NULL DEFAULT '{}';
CREATE INDEX enrolments_waiting ON enrolments (lead_id) WHERE active AND waits_at = step_id;

-- What steps did beside sending messages. A row stands here in the transaction in which the fact is told.
CREATE TABLE acts (
    act_id text PRIMARY KEY,
    enrolment_id text NOT NULL,
    sequence_id text NOT NULL,
    version integer NOT NULL,
    run integer NOT NULL,
    step_id text NOT NULL,
    visit integer NOT NULL,
    lead_id text NOT NULL,
    person_id text NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    came_to text,
    UNIQUE (person_id, sequence_id, run, step_id, visit)
);
CREATE INDEX acts_lead ON acts (lead_id, at DESC);
CREATE INDEX acts_person ON acts (person_id, at DESC);

-- Sequences whose runs under way are to follow another version. One row a sequence: the last decision counts.
CREATE TABLE sequence_moves (
    sequence_id text PRIMARY KEY,
    version integer NOT NULL,
    steps jsonb NOT NULL DEFAULT '{}',
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved bigint NOT NULL DEFAULT 0,
    finished_at timestamptz
);

-- Sequences tried on history: by whom, how far, and what came out.
CREATE TABLE sequence_trials (
    trial_id text PRIMARY KEY,
    sequence_id text NOT NULL,
    state text NOT NULL,
    version integer,
    document json NOT NULL,
    days integer NOT NULL,
    author text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    alive_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    facts bigint NOT NULL DEFAULT 0,
    report json,
    problem text
);
CREATE INDEX sequence_trials_asked ON sequence_trials (asked_at);
"""
# They are installed switched off: somebody has to want them first, and put their own words in.
NEW = ("demo_follow_up", "content_download", "re_engagement", "abandoned_cart", "trial", "renewal")
INSTALL = """
INSERT INTO rule_documents (kind, name, version, document, author)
SELECT 'sequence', %s, 1, %s, 'throughline'
WHERE NOT EXISTS (SELECT FROM rule_documents WHERE kind = 'sequence' AND name = %s)
RETURNING version
"""
ACTIVATE = "INSERT INTO rule_activations (kind, name, version, author) VALUES ('sequence', %s, 1, 'throughline')"


def upgrade() -> None:
    """Add what is missing, and the sequences that come with the product."""
    run_sql(op, OWNED)
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    for name in NEW:
        document = json.dumps(shipped(name))
        if connection.execute(INSTALL, [name, document, name]).fetchone() is not None:
            connection.execute(ACTIVATE, [name])
