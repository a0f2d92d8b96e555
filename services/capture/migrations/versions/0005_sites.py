"""Sites and hosted forms."""

from alembic import op

from shared.db import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

-- A site whose pages carry the tracking snippet. Its id is public.
CREATE TABLE sites (
    site_id text PRIMARY KEY,
    name text NOT NULL,
    origins text[] NOT NULL,
    consent text NOT NULL CHECK (consent IN ('required', 'implied')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A hosted form as it is now, and every version that was ever shown to somebody.
CREATE TABLE forms (
    form_id text PRIMARY KEY,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE form_versions (
    form_id text NOT NULL REFERENCES forms,
    version integer NOT NULL,
    document json NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (form_id, version)
);

-- What was sent with a form, once per form that was shown. `sealed` holds what was typed while it is to be looked at.
CREATE TABLE form_submissions (
    submission_id text PRIMARY KEY,
    form_id text NOT NULL,
    version integer NOT NULL,
    state text NOT NULL CHECK (state IN ('accepted', 'spam', 'released', 'discarded')),
    reasons text[] NOT NULL DEFAULT '{}',
    fingerprint text NOT NULL,
    received integer NOT NULL DEFAULT 1,
    lead_id text,
    sealed text,
    note text,
    received_at timestamptz NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX form_submissions_newest ON form_submissions (form_id, received_at DESC, submission_id DESC);
CREATE INDEX form_submissions_same ON form_submissions (fingerprint, received_at);
CREATE INDEX form_submissions_kept ON form_submissions (received_at) WHERE sealed IS NOT NULL;
CREATE INDEX form_submissions_lead ON form_submissions (lead_id);

-- Consent that was asked for by a link, and whether somebody followed it. `sealed` holds what they read and agreed to.
CREATE TABLE optins (
    optin_id text PRIMARY KEY,
    form_id text NOT NULL,
    version integer NOT NULL,
    submission_id text NOT NULL,
    lead_id text NOT NULL,
    address_hash text NOT NULL,
    sealed text,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    confirmed_at timestamptz
);
CREATE INDEX optins_address ON optins (address_hash, requested_at);
CREATE INDEX optins_lead ON optins (lead_id);
CREATE INDEX optins_expired ON optins (expires_at) WHERE sealed IS NOT NULL;
"""


def upgrade() -> None:
    run_sql(op, TABLES)
