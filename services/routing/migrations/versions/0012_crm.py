"""Connections with CRMs: endpoints of another kind, and which records of theirs ours are."""

from alembic import op

from shared.db import run_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CRM = """
SET LOCAL lock_timeout = '5s';

ALTER TABLE webhook_endpoints ADD COLUMN kind text NOT NULL DEFAULT 'webhook';

CREATE TABLE crm_connections (
    endpoint_id text PRIMARY KEY,
    subscription_id text NOT NULL,
    crm text NOT NULL,
    name text NOT NULL,
    base_url text NOT NULL,
    auth_url text,
    ways jsonb NOT NULL,
    sealed text NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX crm_connections_in_order ON crm_connections (created_at, endpoint_id);

CREATE TABLE crm_records (
    endpoint_id text NOT NULL,
    kind text NOT NULL,
    our_id text NOT NULL,
    crm_id text NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (endpoint_id, kind, our_id)
);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, CRM)
