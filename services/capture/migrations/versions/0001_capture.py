"""The first tables of capture."""

from alembic import op

from shared.db import run_sql, schema_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
-- A lead: what was told about it, and whom it turned out to be. A merged one keeps its row, so it can be undone.
CREATE TABLE leads (
    lead_id text PRIMARY KEY,
    made_from text NOT NULL,
    revision integer NOT NULL DEFAULT 0,
    statements jsonb NOT NULL DEFAULT '{}',
    origin text NOT NULL,
    captured_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    merged_into text,
    alias_at timestamptz,
    erased_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX leads_merged_into ON leads (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX leads_newest ON leads (created_at DESC, lead_id DESC) WHERE merged_into IS NULL AND erased_at IS NULL;

-- An identifier, known by the lead id made from it, which is a keyed hash: whose it is.
CREATE TABLE identifiers (
    own_id text PRIMARY KEY,
    kind text NOT NULL,
    lead_id text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX identifiers_lead ON identifiers (lead_id);

-- To whom a browser belonged from a moment on.
CREATE TABLE links (
    anonymous_id text NOT NULL,
    at timestamptz NOT NULL,
    lead_id text NOT NULL,
    PRIMARY KEY (anonymous_id, at, lead_id)
);
CREATE INDEX links_lead ON links (lead_id);

-- Leads that somebody told apart by undoing a merge: no call ties them again.
CREATE TABLE separations (
    lead_id text NOT NULL,
    other_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (lead_id, other_id),
    CHECK (lead_id < other_id)
);
CREATE INDEX separations_other ON separations (other_id);

-- The consent ledger: every statement ever made, never changed.
CREATE TABLE consent_entries (
    event_id text PRIMARY KEY,
    lead_id text NOT NULL,
    channel text NOT NULL,
    state text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    origin text NOT NULL,
    reason text
);
CREATE INDEX consent_entries_lead ON consent_entries (lead_id, occurred_at);

CREATE TABLE sources (
    source_id text PRIMARY KEY,
    kind text NOT NULL,
    name text NOT NULL,
    mapping jsonb NOT NULL DEFAULT '{}',
    defaults jsonb NOT NULL DEFAULT '{}',
    credential text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE source_secrets (
    source_id text NOT NULL REFERENCES sources,
    n integer NOT NULL,
    sealed text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retired_at timestamptz,
    PRIMARY KEY (source_id, n)
);

-- What became of each delivery; the key makes a second one a no-op. What could not be mapped keeps the sealed request.
CREATE TABLE deliveries (
    source_id text NOT NULL,
    delivery_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('mapped', 'ignored', 'quarantined', 'pending')),
    facts integer NOT NULL DEFAULT 0,
    told jsonb NOT NULL DEFAULT '[]',
    received integer NOT NULL DEFAULT 1,
    try_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    lead_id text,
    reason text,
    kind text NOT NULL,
    sealed text,
    received_at timestamptz NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source_id, delivery_id)
);
CREATE INDEX deliveries_newest ON deliveries (source_id, received_at DESC, delivery_id);
CREATE INDEX deliveries_received ON deliveries (received_at);
CREATE INDEX deliveries_due ON deliveries (try_at) WHERE state = 'pending';
CREATE INDEX event_log_deliveries ON event_log (subject, recorded_at) WHERE type = 'throughline.delivery.received.v1';

-- Names that a source's events use for one and the same purchase.
CREATE TABLE purchase_names (
    source_id text NOT NULL,
    name text NOT NULL,
    external_id text NOT NULL,
    PRIMARY KEY (source_id, name)
);

CREATE INDEX person_keys_destroyed_at ON person_keys (destroyed_at) WHERE destroyed_at IS NOT NULL;
"""


def upgrade() -> None:
    run_sql(op, schema_sql("capture") + TABLES)
