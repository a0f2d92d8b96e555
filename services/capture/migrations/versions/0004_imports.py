"""Imports and exports."""

from alembic import op

from shared.db import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
-- A file to be imported and how far that is: `position` is the byte, `line` the line where its next row begins. The
-- same transaction that carries out rows moves both, so no row is carried out twice or left out.
CREATE TABLE imports (
    import_id text PRIMARY KEY,
    name text NOT NULL,
    kind text NOT NULL,
    format text NOT NULL,
    source text NOT NULL,
    mapping jsonb,
    defaults jsonb NOT NULL DEFAULT '{}',
    delimiter text,
    encoding text,
    dry_run boolean NOT NULL DEFAULT false,
    state text NOT NULL CHECK (state IN ('waiting', 'ready', 'queued', 'running', 'done', 'cancelled', 'failed')),
    reason text,
    file_id text,
    file_bytes bigint,
    file_lines bigint,
    file_sha256 text,
    columns jsonb NOT NULL DEFAULT '[]',
    content text,
    told_at timestamptz,
    again boolean NOT NULL DEFAULT false,
    told_before boolean NOT NULL DEFAULT false,
    position bigint NOT NULL DEFAULT 0,
    line bigint NOT NULL DEFAULT 1,
    rows_done bigint NOT NULL DEFAULT 0,
    created bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    rate double precision,
    owner text,
    lease_until timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    uploaded_at timestamptz,
    queued_at timestamptz,
    started_at timestamptz,
    worked_at timestamptz,
    finished_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX imports_newest ON imports (created_at DESC, import_id DESC);
CREATE INDEX imports_open ON imports (worked_at) WHERE state IN ('queued', 'running');
CREATE INDEX imports_content ON imports (content) WHERE content IS NOT NULL;

-- A file in pieces, packed and sealed. `file_id` is that of one upload: a broken one leaves pieces that nobody reads.
CREATE TABLE import_pieces (
    file_id text NOT NULL,
    position bigint NOT NULL,
    size integer NOT NULL,
    sealed bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (file_id, position)
);
CREATE INDEX import_pieces_stored ON import_pieces (stored_at);

-- The bad rows of an import, some at a time, packed and sealed; `line` is that of the first.
CREATE TABLE import_bad_rows (
    import_id text NOT NULL,
    line bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (import_id, line)
);

-- Whom a dry run would have made so far: what it carries out is taken back, so it has to remember.
CREATE TABLE import_dry_leads (
    import_id text NOT NULL,
    lead_id text NOT NULL,
    PRIMARY KEY (import_id, lead_id)
);
"""


def upgrade() -> None:
    run_sql(op, TABLES)
