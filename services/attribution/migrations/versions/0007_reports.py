"""Rates of exchange."""

from alembic import op

from shared.db import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

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
    run_sql(op, TABLES)
