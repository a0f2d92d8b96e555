"""Broadcasts: one message to many people."""

from alembic import op

from shared.db import run_sql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';
CREATE TABLE broadcasts (
    broadcast_id text PRIMARY KEY,
    document json NOT NULL,
    version integer,
    state text NOT NULL CHECK (state IN ('draft', 'running', 'stopped', 'cancelled', 'done')),
    reason text,
    author text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    send_at timestamptz,
    started_at timestamptz,
    listed_to text,
    listed_at timestamptz,
    people integer NOT NULL DEFAULT 0,
    entered integer NOT NULL DEFAULT 0,
    free_from timestamptz,
    finished_at timestamptz
);
CREATE INDEX broadcasts_newest ON broadcasts (created_at, broadcast_id);
CREATE INDEX broadcasts_to_do ON broadcasts (created_at)
    WHERE state IN ('running', 'cancelled') AND finished_at IS NULL;

-- Who is meant, fixed at the start, and when they come to the sender. Of a dry run (by its id) whom it has met.
CREATE TABLE broadcast_members (
    broadcast_id text NOT NULL,
    lead_id text NOT NULL,
    turn_at timestamptz,
    PRIMARY KEY (broadcast_id, lead_id)
);
CREATE INDEX broadcast_members_waiting ON broadcast_members (broadcast_id, lead_id) WHERE turn_at IS NULL;
CREATE INDEX broadcast_members_lead ON broadcast_members (lead_id);

-- Which lead gets it of those who share an address. The address stands as a keyed hash.
CREATE TABLE broadcast_addresses (
    broadcast_id text NOT NULL,
    address_hash text NOT NULL,
    lead_id text NOT NULL,
    PRIMARY KEY (broadcast_id, address_hash)
);
CREATE INDEX broadcast_addresses_lead ON broadcast_addresses (lead_id);

CREATE TABLE broadcast_dry_runs (
    broadcast_id text PRIMARY KEY,
    dry_run_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'done')),
    listed_to text,
    listed boolean NOT NULL DEFAULT false,
    people integer NOT NULL DEFAULT 0,
    would_get integer NOT NULL DEFAULT 0,
    held_back json NOT NULL DEFAULT '[]',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);

-- What has become of a broadcast's messages, and when.
CREATE INDEX messages_broadcast ON messages (sequence_id, claimed_at) WHERE starts_with(sequence_id, 'broadcast-');

-- A new installation has the index from projection.sql already.
CREATE INDEX IF NOT EXISTS segments_members ON nurture_projection.segments (segment_id, lead_id) WHERE member;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
