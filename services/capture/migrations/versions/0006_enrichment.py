"""Enrichment: providers, what they said, and what is still to be asked."""

from alembic import op

from shared.db import run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
-- What is known of a provider besides its document, shared by all processes that call it.
CREATE TABLE enrichment_providers (
    provider_id text PRIMARY KEY,
    active boolean NOT NULL,
    credential text,
    next_slot timestamptz,
    failures integer NOT NULL DEFAULT 0,
    closed_until timestamptz,
    trial_until timestamptz
);

-- A call is written down before it is made, so that no budget is ever exceeded, whatever dies in between.
CREATE TABLE enrichment_usage (
    provider_id text NOT NULL,
    day date NOT NULL,
    calls integer NOT NULL DEFAULT 0,
    hits integer NOT NULL DEFAULT 0,
    misses integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    cache_hits integer NOT NULL DEFAULT 0,
    spent_minor bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (provider_id, day)
);

-- Leads whose providers are to be asked. `wanted` counts what asked for it, `claim` is of whoever is at it.
CREATE TABLE enrichments (
    lead_id text PRIMARY KEY,
    due_at timestamptz NOT NULL,
    wanted integer NOT NULL DEFAULT 1,
    forced_at timestamptz,
    claim text,
    held_until timestamptz,
    tries integer NOT NULL DEFAULT 0
);
CREATE INDEX enrichments_due ON enrichments (due_at);

-- How it went with a lead and a provider, last. `input` is a keyed hash of what was sent.
CREATE TABLE enrichment_asks (
    lead_id text NOT NULL,
    provider_id text NOT NULL,
    outcome text NOT NULL,
    detail text,
    fields jsonb NOT NULL DEFAULT '[]',
    version integer NOT NULL,
    input text,
    tries integer NOT NULL DEFAULT 0,
    asked_at timestamptz NOT NULL,
    until timestamptz,
    retry_at timestamptz,
    PRIMARY KEY (lead_id, provider_id)
);

-- Answers worth keeping: the key is a keyed hash, the content sealed; one about a person goes when they are erased.
CREATE TABLE enrichment_answers (
    provider_id text NOT NULL,
    key text NOT NULL,
    sealed text NOT NULL,
    lead_id text,
    answered_at timestamptz NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (provider_id, key)
);
CREATE INDEX enrichment_answers_lead ON enrichment_answers (lead_id) WHERE lead_id IS NOT NULL;
CREATE INDEX enrichment_answers_until ON enrichment_answers (until);
"""


def upgrade() -> None:
    run_sql(op, TABLES)
