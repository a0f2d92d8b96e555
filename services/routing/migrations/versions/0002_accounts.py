"""Accounts, folded: who owns the company of a lead, and those above it."""

from alembic import op

from shared.db import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A new installation has the table from projection.sql already.
ACCOUNTS = """
SET LOCAL lock_timeout = '5s';
CREATE TABLE IF NOT EXISTS routing_projection.accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    parent_id text,
    merged_into text,
    name text,
    domain text,
    owner_id text,
    industry text,
    employees bigint,
    annual_revenue bigint,
    country text
) WITH (fillfactor = 70);
"""


def upgrade() -> None:
    run_sql(op, ACCOUNTS)
