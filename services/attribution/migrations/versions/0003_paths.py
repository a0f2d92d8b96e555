"""What follows from the sequences of channels."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PROJECTION = """
SET LOCAL search_path TO attribution_projection;

CREATE TABLE IF NOT EXISTS path_sums (
    subject text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    key_id bigint NOT NULL,
    keys text[] NOT NULL,
    journeys bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (subject, level, day, currency, conversion_type, key_id)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS path_ranks (
    subject text NOT NULL,
    currency text NOT NULL,
    key_id bigint NOT NULL,
    keys text[] NOT NULL,
    journeys bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (subject, currency, key_id)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS path_ranks_most ON path_ranks (subject, currency, journeys DESC, value_minor DESC, key_id);

CREATE TABLE IF NOT EXISTS remainders (
    person_id text PRIMARY KEY,
    last_at timestamptz NOT NULL,
    channels text[] NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS remainders_time ON remainders (last_at);

SET LOCAL search_path TO attribution;
"""

OWNED = """
-- Ids of which something changed, so that what is left of their persons' journeys has to be looked at, by the schema of
-- the projection. Until `as_of` all that was told is in what was stored before.
CREATE TABLE path_turns (
    turn bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection text NOT NULL,
    lead_ids text[] NOT NULL,
    as_of timestamptz
);
ALTER TABLE path_turns ALTER COLUMN lead_ids SET STORAGE EXTERNAL;

-- How often the sums of a projection moved; there once all its ids have been put on the list of those to look at.
CREATE TABLE path_moves (
    projection text PRIMARY KEY,
    moves bigint NOT NULL
);

-- What channels earn by a model that takes longer to compute than a request may, and by which state of the sums.
CREATE TABLE channel_totals (
    projection text NOT NULL,
    model text NOT NULL,
    currency text NOT NULL,
    moves bigint NOT NULL,
    as_of timestamptz,
    result jsonb NOT NULL,
    PRIMARY KEY (projection, model, currency)
);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, PROJECTION + OWNED)
