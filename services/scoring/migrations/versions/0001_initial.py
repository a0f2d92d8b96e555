"""Scoring's tables: the runtime's, the projection, and what scoring decided."""

from alembic import op

from shared.db import run_sql, schema_sql

revision = "0001"
down_revision = None

OWNED = """
-- Where each person stands: decided once, told with a revision, not refolded. `due_at` is when decay alone could change
-- it, `due_below` the engagement that is then passed; a look that comes too early only looks again.
CREATE TABLE standings (
    person_id text PRIMARY KEY,
    stage text NOT NULL DEFAULT 'subscriber',
    held text[] NOT NULL DEFAULT '{}',
    furthest text NOT NULL DEFAULT 'subscriber',
    since timestamptz,
    reason text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 0,
    told_total integer,
    told_grade text,
    due_at timestamptz,
    due_below double precision
) WITH (fillfactor = 70);
CREATE INDEX standings_due ON standings (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE stage_changes (
    person_id text NOT NULL,
    revision bigint NOT NULL,
    stage text NOT NULL,
    previous text,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    engagement double precision NOT NULL,
    fit integer NOT NULL,
    total double precision NOT NULL,
    grade text NOT NULL,
    rules_version integer NOT NULL,
    cause text NOT NULL,
    PRIMARY KEY (person_id, revision)
);

-- Persons whose facts changed other than by a fact of their own: to be looked at.
CREATE TABLE unsettled (
    person_id text PRIMARY KEY
);
"""


def upgrade() -> None:
    """Make everything."""
    run_sql(op, schema_sql("scoring"))
    run_sql(op, OWNED)
