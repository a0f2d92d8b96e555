"""Consent by purpose, with its evidence; receipts of erasures and exports."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

-- `evidence` is sealed with the person's key. `recorded_at` orders the ledger for those who keep up with it.
ALTER TABLE consent_entries ADD COLUMN purpose text NOT NULL DEFAULT 'marketing';
ALTER TABLE consent_entries ADD COLUMN evidence text;
-- A default that is the same for all rows writes none of them; what stands there already counts as recorded now.
ALTER TABLE consent_entries ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE consent_entries ALTER COLUMN recorded_at SET DEFAULT clock_timestamp();
CREATE INDEX consent_entries_recorded ON consent_entries (recorded_at, event_id);

CREATE INDEX deliveries_lead ON deliveries (lead_id) WHERE lead_id IS NOT NULL;

-- Receipts of erasures. While `due`, requests that are kept are still looked through for `traces`, which are sealed
-- with the installation's key and gone when that is done.
CREATE TABLE erasures (
    receipt_id text PRIMARY KEY,
    lead_id text NOT NULL,
    erased_at timestamptz NOT NULL,
    reason text,
    requested_by text,
    reference text,
    origin text NOT NULL,
    traces text,
    due boolean NOT NULL DEFAULT false,
    requests integer NOT NULL DEFAULT 0
);
CREATE INDEX erasures_newest ON erasures (erased_at DESC, receipt_id DESC);
CREATE INDEX erasures_due ON erasures (erased_at) WHERE due;

-- Every id that was erased, and by which erasure.
CREATE TABLE erased_ids (
    lead_id text PRIMARY KEY,
    receipt_id text NOT NULL
);
CREATE INDEX erased_ids_receipt ON erased_ids (receipt_id);

-- What each service reported about each id.
CREATE TABLE erasure_reports (
    receipt_id text NOT NULL,
    lead_id text NOT NULL,
    service text NOT NULL,
    erased jsonb NOT NULL,
    kept jsonb NOT NULL,
    why_kept jsonb NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (receipt_id, lead_id, service)
);

-- What a person who asks gets to know, until it expires: the pieces of each service's part, sealed with their key.
CREATE TABLE person_exports (
    export_id text PRIMARY KEY,
    lead_id text NOT NULL,
    lead_ids text[] NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX person_exports_lead ON person_exports (lead_id);
CREATE INDEX person_exports_expiry ON person_exports (expires_at);

CREATE TABLE person_export_chunks (
    export_id text NOT NULL REFERENCES person_exports ON DELETE CASCADE,
    service text NOT NULL,
    chunk integer NOT NULL,
    chunks integer NOT NULL,
    plain text,
    sealed text,
    PRIMARY KEY (export_id, service, chunk)
);
"""


def upgrade() -> None:
    run_sql(op, TABLES)
