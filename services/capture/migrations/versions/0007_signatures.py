"""Signatures that are good for one body: which body they came with."""

from alembic import op

from shared.db import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE signed_once (
    source_id text NOT NULL,
    token text NOT NULL,
    body_sha256 bytea NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source_id, token)
);
CREATE INDEX signed_once_seen ON signed_once (seen_at);
"""


def upgrade() -> None:
    """Make the table."""
    run_sql(op, TABLES)
