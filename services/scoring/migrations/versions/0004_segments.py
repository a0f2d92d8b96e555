"""Segments: which version of each serves, who is in it, and what was told of it."""

from alembic import op

from shared.db import run_sql

revision = "0004"
down_revision = "0003"

TABLES = """
SET LOCAL lock_timeout = '5s';

-- `version` is the active one that has been dealt with, `serving` the one whose members count, `building` the one that
-- is being computed beside it, so far up to `built_up_to`. `telling`: what was told may differ from what serves.
CREATE TABLE segments (
    segment_id text PRIMARY KEY,
    kind text NOT NULL,
    version integer NOT NULL,
    serving integer,
    building integer,
    built_up_to text NOT NULL DEFAULT '',
    counted bigint NOT NULL DEFAULT 0,
    people bigint NOT NULL DEFAULT 0,
    telling boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false
);

-- Who meets which version; `why` holds the values that its condition read when it began to hold.
CREATE TABLE segment_members (
    person_id text NOT NULL,
    segment_id text NOT NULL,
    version integer NOT NULL,
    since timestamptz NOT NULL,
    why jsonb NOT NULL,
    PRIMARY KEY (person_id, segment_id, version)
);
CREATE INDEX segment_members_listed ON segment_members (segment_id, version, person_id);

-- What others were told last.
CREATE TABLE segment_told (
    person_id text NOT NULL,
    segment_id text NOT NULL,
    member boolean NOT NULL,
    revision bigint NOT NULL,
    since timestamptz,
    PRIMARY KEY (person_id, segment_id)
) WITH (fillfactor = 80);
CREATE INDEX segment_told_members ON segment_told (segment_id, person_id) WHERE member;

-- Who was put into a static segment, under the id that was given.
CREATE TABLE segment_listed (
    segment_id text NOT NULL,
    lead_id text NOT NULL,
    added_at timestamptz NOT NULL,
    PRIMARY KEY (segment_id, lead_id)
);
CREATE INDEX segment_listed_lead ON segment_listed (lead_id);

-- When time alone could next change what conditions see of a person; a look that comes too early only looks again.
CREATE TABLE segment_due (
    person_id text PRIMARY KEY,
    due_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX segment_due_at ON segment_due (due_at);
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
