"""Touches that were withdrawn, scores beside the main one, and the scores of accounts."""

from alembic import op

from shared.db import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A new installation has these from projection.sql already.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO scoring_projection;

CREATE TABLE IF NOT EXISTS withdrawals (
    origin text NOT NULL,
    touch_id text NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (origin, touch_id)
);

CREATE TABLE IF NOT EXISTS accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    parent_id text,
    merged_into text,
    industry text,
    employees bigint,
    annual_revenue bigint,
    country text
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS accounts_below ON accounts ((coalesce(merged_into, parent_id)))
    WHERE coalesce(merged_into, parent_id) IS NOT NULL;
CREATE INDEX IF NOT EXISTS scores_account ON scores ((lead ->> 'account_id')) WHERE lead ->> 'account_id' IS NOT NULL;

SET LOCAL search_path TO scoring;
"""

OWNED = """
-- The whole numbers of the scores beside the main one that were told last, by id.
ALTER TABLE standings ADD COLUMN told_scores jsonb NOT NULL DEFAULT '{}';

-- The account that a person counted for last.
ALTER TABLE standings ADD COLUMN account_id text;

-- What was told of accounts. `due_at` is when decay alone could change it; a look too early only looks again. Without a
-- total it is nobody's account any more, or another one by now.
CREATE TABLE account_standings (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL DEFAULT 0,
    engagement double precision,
    fit integer,
    total double precision,
    grade text,
    people integer,
    engaged_people integer,
    rules_version integer,
    at timestamptz,
    due_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX account_standings_order ON account_standings (total DESC, account_id) WHERE total IS NOT NULL;
CREATE INDEX account_standings_due ON account_standings (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX account_standings_rules ON account_standings (rules_version);

-- Accounts of whose people something changed: to be looked at. Insert-only, so that nobody waits for anybody.
CREATE TABLE account_marks (
    mark bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text NOT NULL
);

-- The projection whose accounts were looked at.
CREATE TABLE account_scoring (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    projection smallint
);
INSERT INTO account_scoring DEFAULT VALUES;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, PROJECTION + OWNED)
