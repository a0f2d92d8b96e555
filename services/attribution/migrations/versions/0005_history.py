"""Facts that others replaced, and who was whom when.

What was told before is not known to these tables: a rebuild fills them.
"""

from alembic import op

from shared.db import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;
CREATE TABLE IF NOT EXISTS touch_versions (
    LIKE touches,
    PRIMARY KEY (touch_id, origin, position, received_at)
);
CREATE INDEX IF NOT EXISTS touch_versions_lead ON touch_versions (lead_id);

CREATE TABLE IF NOT EXISTS conversion_versions (
    LIKE conversions,
    PRIMARY KEY (conversion_id, position, received_at)
);
CREATE INDEX IF NOT EXISTS conversion_versions_lead ON conversion_versions (lead_id);

CREATE TABLE IF NOT EXISTS refund_versions (
    LIKE refunds,
    PRIMARY KEY (conversion_id, refund_id, position, received_at)
);

CREATE TABLE IF NOT EXISTS identity_log (
    event_id text PRIMARY KEY,
    kind text NOT NULL,
    lead_id text NOT NULL,
    into_id text,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS identity_log_lead ON identity_log (lead_id);
CREATE INDEX IF NOT EXISTS identity_log_into ON identity_log (into_id);

CREATE TABLE IF NOT EXISTS profile_log (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    captured_at timestamptz NOT NULL,
    country text,
    account_id text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, revision)
);
CREATE TABLE IF NOT EXISTS deal_log (
    deal_id text NOT NULL,
    revision bigint NOT NULL,
    opened_at timestamptz NOT NULL,
    rep_id text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (deal_id, revision)
);
SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
