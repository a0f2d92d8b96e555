"""Consent by purpose, with its evidence; receipts of erasures and exports."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

-- `evidence` is sealed with the person's key. `recorded_at` orders the ledger for those who keep up with it.
ALTER TABLE consent_entries ADD COLUMN purpose text NOT NULL DEFAULT 'marketing';
ALTER TABLE consent_entries ADD COLUMN evidence text;
-- A default that is the same for all rows writes none of them; what stands there already counts as recorded now.
ALTER TABLE consent_entries ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE consent_entries ALTER COLUMN recorded_at SET DEFAULT clock_timestamp();
CREATE INDEX consent_entries_recorded ON consent_entries (recorded_at, event_id);
"""


def upgrade() -> None:
    run_sql(op, TABLES)
