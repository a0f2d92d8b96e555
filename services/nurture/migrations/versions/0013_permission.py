"""What people prefer, lists by channel, bad reports, and sequences that the guard paused."""

from alembic import op

from shared.db import run_sql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

-- What a person chose on their page, apart from consent, which is told.
CREATE TABLE contact_preferences (
    lead_id text PRIMARY KEY,
    language text,
    paused_until timestamptz,
    changed_at timestamptz NOT NULL
);

-- Of what kind an entry is; a domain or a role stands in clear, an address or a number as a keyed hash alone.
ALTER TABLE suppressions ADD COLUMN kind text, ADD COLUMN value text;

-- Bounces and complaints as providers report them. `recipient` is the hash of the address, or else the lead's id.
CREATE TABLE message_troubles (
    event_id text PRIMARY KEY,
    recipient text NOT NULL,
    channel text NOT NULL,
    trouble text NOT NULL CHECK (trouble IN ('hard_bounce', 'soft_bounce', 'complaint')),
    message_id text,
    sequence_id text,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX message_troubles_recipient ON message_troubles (recipient);
CREATE INDEX message_troubles_sequence ON message_troubles (sequence_id, occurred_at) WHERE sequence_id IS NOT NULL;
CREATE INDEX message_troubles_time ON message_troubles (occurred_at);

-- The last pause of each sequence; while `resumed_at` is empty it lasts.
CREATE TABLE guarded_sequences (
    sequence_id text PRIMARY KEY,
    paused_at timestamptz NOT NULL,
    reason text NOT NULL,
    taken integer NOT NULL,
    bounced integer NOT NULL,
    complained integer NOT NULL,
    resumed_at timestamptz,
    resumed_by text,
    resumed_because text
);

CREATE INDEX messages_of_sequence ON messages (sequence_id, claimed_at, state) WHERE claimed_at IS NOT NULL;
CREATE INDEX messages_bounced ON messages (settled_at, sequence_id) WHERE state = 'bounced';
"""


def upgrade() -> None:
    """Make the tables; entries of before have no kind, and are of addresses or leads."""
    run_sql(op, TABLES)
