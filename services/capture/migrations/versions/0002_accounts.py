"""Accounts, which leads are theirs, and who may be whom."""

from alembic import op

from shared.db import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

-- A company. One that was merged into another keeps its row, so that its ids, and its name, go on meaning the other.
CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    revision integer NOT NULL DEFAULT 1,
    name text NOT NULL,
    name_key text,
    external_id text,
    parent_id text,
    owner_id text,
    industry text,
    employees bigint,
    annual_revenue bigint,
    country text,
    attributes jsonb NOT NULL DEFAULT '{}',
    made_by text NOT NULL,
    merged_into text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX accounts_external_id ON accounts (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX accounts_name ON accounts (name_key, account_id);
CREATE INDEX accounts_name_begin ON accounts (left(name_key, 4), account_id) WHERE merged_into IS NULL;
CREATE INDEX accounts_parent ON accounts (parent_id, account_id) WHERE parent_id IS NOT NULL;
CREATE INDEX accounts_merged_into ON accounts (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX accounts_newest ON accounts (created_at DESC, account_id DESC) WHERE merged_into IS NULL;

-- Whose a registrable domain is: one account's.
CREATE TABLE account_domains (
    domain text PRIMARY KEY,
    account_id text NOT NULL
);
CREATE INDEX account_domains_account ON account_domains (account_id);

-- Which account the person belongs to that a lead stands for (none: none matched), why, and what it was matched by:
-- so that an account made or changed later finds the leads that waited for it.
CREATE TABLE lead_accounts (
    lead_id text PRIMARY KEY,
    account_id text,
    matched_by text,
    reason text NOT NULL,
    domain text,
    name_key text
) WITH (fillfactor = 85);
CREATE INDEX lead_accounts_account ON lead_accounts (account_id, lead_id) WHERE account_id IS NOT NULL;
CREATE INDEX lead_accounts_domain ON lead_accounts (domain, lead_id) WHERE domain IS NOT NULL;
CREATE INDEX lead_accounts_name ON lead_accounts (name_key, lead_id) WHERE name_key IS NOT NULL AND domain IS NULL;
CREATE INDEX lead_accounts_name_begin ON lead_accounts (left(name_key, 4), lead_id)
    WHERE name_key IS NOT NULL AND domain IS NULL;

-- What somebody chose by hand, kept with the lead it was said of; no account: none, whatever matches.
CREATE TABLE account_choices (
    lead_id text PRIMARY KEY,
    account_id text,
    actor text NOT NULL,
    at timestamptz NOT NULL
);

-- Leads to be matched again, by what they have in common; `settled_at` is the transaction id that all must have
-- passed which may not have seen the change yet.
CREATE TABLE rematches (
    by text NOT NULL,
    key text NOT NULL,
    settled_at xid8,
    seen_at timestamptz,
    after_lead text NOT NULL DEFAULT '',
    PRIMARY KEY (by, key)
);
CREATE INDEX rematches_unseen ON rematches (by, key) WHERE settled_at IS NULL;
CREATE INDEX rematches_in_turn ON rematches (seen_at, by, key);

-- By what a person may be found who is somebody else's double: keyed hashes, so that nothing personal stands here.
CREATE TABLE likeness_keys (
    key bytea NOT NULL,
    lead_id text NOT NULL,
    PRIMARY KEY (key, lead_id)
);
CREATE INDEX likeness_keys_lead ON likeness_keys (lead_id);

-- Persons whose likenesses are to be looked at, once nobody is under way any more who may not have been seen.
CREATE TABLE likeness_checks (
    lead_id text PRIMARY KEY,
    settled_at xid8,
    seen_at timestamptz
);
CREATE INDEX likeness_checks_unseen ON likeness_checks (lead_id) WHERE settled_at IS NULL;

-- Two persons who may be one, with how much says so.
CREATE TABLE likenesses (
    lead_id text NOT NULL,
    other_id text NOT NULL,
    score smallint NOT NULL,
    PRIMARY KEY (lead_id, other_id),
    CHECK (lead_id < other_id)
);
CREATE INDEX likenesses_other ON likenesses (other_id);
CREATE INDEX likenesses_best ON likenesses ((-score), lead_id, other_id);

INSERT INTO rematches (by, key) VALUES ('every', '');
"""


def upgrade() -> None:
    run_sql(op, TABLES)
