"""Facts for other systems."""

from alembic import op

from shared.db import run_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE subscriptions (
    subscription_id text PRIMARY KEY,
    endpoint_id text NOT NULL,
    name text NOT NULL,
    types text[] NOT NULL,
    filter text,
    personal boolean NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    since timestamptz NOT NULL,
    run integer NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX subscriptions_in_order ON subscriptions (created_at, subscription_id);
CREATE INDEX subscriptions_endpoint ON subscriptions (endpoint_id);

-- How far each has read in Kafka: the offset to read next.
CREATE TABLE subscription_places (
    subscription_id text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (subscription_id, topic, partition)
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, STATEMENTS)
