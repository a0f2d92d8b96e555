"""Deals of CRMs that come without a contact, and whose they are."""

from alembic import op

from shared.db import run_sql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLE = """
SET LOCAL lock_timeout = '5s';
CREATE TABLE crm_deals (
    source_id text NOT NULL,
    deal_id text NOT NULL,
    stage text,
    lead_id text,
    account_id text,
    reason text NOT NULL,
    tied_by text,
    deliveries text[] NOT NULL DEFAULT '{}',
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL,
    PRIMARY KEY (source_id, deal_id)
);
CREATE INDEX crm_deals_untied ON crm_deals (last_at DESC, source_id DESC, deal_id DESC) WHERE lead_id IS NULL;
CREATE INDEX crm_deals_tied ON crm_deals (last_at DESC, source_id DESC, deal_id DESC) WHERE lead_id IS NOT NULL;
CREATE INDEX crm_deals_lead ON crm_deals (lead_id) WHERE lead_id IS NOT NULL;
"""


def upgrade() -> None:
    """Make the table."""
    run_sql(op, TABLE)
