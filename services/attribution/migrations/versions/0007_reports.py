"""Rates of exchange, what cohorts are counted by, and the sums that are asked for most."""

from alembic import op

from shared.db import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;

CREATE TABLE IF NOT EXISTS contacts (
    person_id text PRIMARY KEY,
    first_at timestamptz NOT NULL,
    channel text NOT NULL,
    conversion_ids text[] NOT NULL,
    times timestamptz[] NOT NULL,
    currencies text[] NOT NULL,
    values_minor bigint[] NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS contacts_time ON contacts (first_at, channel);
CREATE INDEX IF NOT EXISTS contacts_buyers ON contacts (first_at) WHERE conversion_ids <> '{}';

CREATE TABLE IF NOT EXISTS cohort_sizes (
    level text NOT NULL,
    cohort date NOT NULL,
    channel text NOT NULL,
    people bigint NOT NULL,
    PRIMARY KEY (level, cohort, channel)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS cohort_sums (
    level text NOT NULL,
    cohort date NOT NULL,
    channel text NOT NULL,
    currency text NOT NULL,
    age integer NOT NULL,
    people bigint NOT NULL,
    conversions bigint NOT NULL,
    first_minor bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (level, cohort, channel, currency, age)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS channel_sums (
    run integer NOT NULL,
    basis text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    channel text NOT NULL,
    units bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (run, basis, level, day, currency, conversion_type, channel)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS owner_sums (
    dimension text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    key text NOT NULL,
    conversions bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (dimension, level, day, currency, conversion_type, key)
) WITH (fillfactor = 70);

SET LOCAL search_path TO attribution;
"""

OWNED = """
-- What one unit of a currency was worth in another on a day, as the user posted it.
CREATE TABLE exchange_rates (
    base text NOT NULL,
    quote text NOT NULL,
    day date NOT NULL,
    rate numeric NOT NULL CHECK (rate > 0),
    posted_by text NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (base, quote, day)
);
CREATE INDEX exchange_rates_newest ON exchange_rates (day DESC, base, quote);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, PROJECTION + OWNED)
