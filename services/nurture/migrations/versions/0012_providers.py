"""Which provider has a message, and under which id; emails asked of domains; retargeting lists and who is in them."""

from alembic import op

from shared.db import run_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

PROVIDERS = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE messages ADD COLUMN provider text, ADD COLUMN provider_id text;
CREATE INDEX messages_provider ON messages (provider_id) WHERE provider_id IS NOT NULL;
-- One row per domain that a limit is set for: how often it was asked for in its last minute.
CREATE TABLE domain_minutes (
    domain text PRIMARY KEY,
    minute timestamptz NOT NULL,
    asked integer NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE audiences (
    audience_id text PRIMARY KEY,
    name text NOT NULL,
    url text NOT NULL,
    secret text NOT NULL,
    segment_id text NOT NULL,
    purpose text NOT NULL,
    identifiers text[] NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'ending')),
    reason text,
    attempts integer NOT NULL DEFAULT 0,
    claim text,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    told_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- What the keeper of a list has or may have stands here before they are told. It outlives the person's profile: without
-- the hash nobody could take them out.
CREATE TABLE audience_members (
    audience_id text NOT NULL REFERENCES audiences,
    lead_id text NOT NULL,
    wanted text[] NOT NULL DEFAULT '{}',
    may_have text[] NOT NULL DEFAULT '{}',
    done boolean NOT NULL DEFAULT true,
    looked_at timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (audience_id, lead_id)
) WITH (fillfactor = 70);
CREATE INDEX audience_members_looked ON audience_members (audience_id, looked_at);
CREATE INDEX audience_members_open ON audience_members (audience_id) WHERE NOT done;
CREATE INDEX audience_members_lead ON audience_members (lead_id);
"""


def upgrade() -> None:
    """Add them."""
    run_sql(op, PROVIDERS)
