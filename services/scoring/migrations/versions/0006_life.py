"""Activations say why, can be called off and rolled back; other rules are computed beside those that serve."""

from alembic import op

from shared.db import package_sql, run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
-- The rows of persons under other rules, in the schema `scoring_v<version>`: being filled, ready to serve, or kept for
-- a rollback. They follow the facts of one projection, and look as its tables did at one revision of this schema;
-- others are dropped and made anew. Persons up to `reached` are filled.
CREATE TABLE beside (
    version integer PRIMARY KEY,
    state text NOT NULL,
    projection integer NOT NULL,
    revision text NOT NULL,
    reached text NOT NULL DEFAULT '',
    filled bigint NOT NULL DEFAULT 0,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Switches of the rows that serve, and how far the stages that follow from each were decided: persons up to `reached`.
-- `allowance` is how many leads may still advance now, as of `allowed_at`.
CREATE TABLE switches (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version integer NOT NULL,
    previous integer NOT NULL,
    announce boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reached text NOT NULL DEFAULT '',
    judged bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0,
    advanced bigint NOT NULL DEFAULT 0,
    allowance double precision NOT NULL,
    allowed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE INDEX switches_open ON switches (sequence) WHERE finished_at IS NULL;

-- Simulations that take longer than a request may: by whom, how far, and what came out.
CREATE TABLE simulations (
    simulation_id text PRIMARY KEY,
    state text NOT NULL,
    version integer,
    document json NOT NULL,
    days integer NOT NULL,
    sample integer,
    author text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    alive_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    persons bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    report json,
    problem text
);
CREATE INDEX simulations_asked ON simulations (asked_at);

SET LOCAL search_path TO scoring_projection;
CREATE TABLE IF NOT EXISTS serving_rules (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL
);
INSERT INTO serving_rules (version)
SELECT rules_version FROM scores GROUP BY rules_version ORDER BY count(*) DESC, rules_version DESC LIMIT 1
ON CONFLICT DO NOTHING;
SET LOCAL search_path TO scoring_projection, scoring;
"""


def upgrade() -> None:
    """Add what is missing; what was activated before keeps an unknown time of decision and no reason."""
    run_sql(op, package_sql("shared.rules", "activations.sql") + TABLES)
