"""Messages that ask for the confirmation of consent."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"

TABLES = """
-- One row per link; it is due until the ledger has the message. `sealed` opens to the address and the link.
CREATE TABLE optins (
    optin_id text PRIMARY KEY,
    lead_id text NOT NULL,
    form_name text NOT NULL,
    language text NOT NULL,
    sealed text,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    due_at timestamptz,
    claim text,
    hold text
);
CREATE INDEX optins_due ON optins (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX optins_lead ON optins (lead_id);
CREATE INDEX optins_expired ON optins (expires_at) WHERE sealed IS NOT NULL;
"""


def upgrade() -> None:
    run_sql(op, TABLES)
