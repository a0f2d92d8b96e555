"""The books of queues entry by entry, and what each decision saw."""

from alembic import op

from shared.db import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# 803134332000 units are a lead: `LEAD` in fairness/domain.py. The columns `numerator` and `denominator` of turns are
# what an earlier version, still running, reads and writes.
TABLES = """
SET LOCAL lock_timeout = '5s';
-- The last number of an entry or a decision; counted up under the lock of the dispatcher.
ALTER TABLE dispatcher ADD COLUMN number bigint NOT NULL DEFAULT 0;

-- Accounts: the entries of each member of a queue, folded.
ALTER TABLE turns
    ALTER COLUMN numerator SET DEFAULT 0,
    ALTER COLUMN denominator SET DEFAULT 1,
    ADD COLUMN balance bigint NOT NULL DEFAULT 0,
    ADD COLUMN received bigint NOT NULL DEFAULT 0,
    ADD COLUMN entries bigint NOT NULL DEFAULT 0,
    ADD COLUMN weight integer,
    ADD COLUMN away text,
    ADD COLUMN since timestamptz NOT NULL DEFAULT '-infinity';

CREATE TABLE fairness_entries (
    number bigint PRIMARY KEY,
    queue_id text NOT NULL,
    kind text NOT NULL,
    rep_id text NOT NULL,
    at timestamptz NOT NULL,
    units bigint NOT NULL,
    why text NOT NULL,
    weight integer,
    weights_hash text,
    level bigint NOT NULL,
    assignment_id text,
    lead_id text,
    actor text
);
CREATE INDEX fairness_entries_queue ON fairness_entries (queue_id, number);
CREATE INDEX fairness_entries_assignment ON fairness_entries (assignment_id) WHERE assignment_id IS NOT NULL;

-- Among whom leads were shared out: [[rep_id, weight], ...], once for all turns that had the same members.
CREATE TABLE fairness_weights (
    weights_hash text PRIMARY KEY,
    weights jsonb NOT NULL
);

-- The accounts of a queue as they were after an entry, now and then: where reading the past begins.
CREATE TABLE fairness_statements (
    queue_id text NOT NULL,
    number bigint NOT NULL,
    books jsonb NOT NULL,
    PRIMARY KEY (queue_id, number)
);

-- Each choice by the rules, and the claims that it saw; the pool by what it is made of.
CREATE TABLE decisions (
    assignment_id text PRIMARY KEY,
    number bigint NOT NULL,
    pool_hash text NOT NULL,
    previous_owner text,
    previous_at timestamptz,
    account_owner text,
    passed_by text[] NOT NULL
);
CREATE TABLE pools (
    pool_hash text PRIMARY KEY,
    rep_ids text[] NOT NULL
);
-- How a rep stood at the decision of this number and those after it, until the next row.
CREATE TABLE rep_states (
    rep_id text NOT NULL,
    number bigint NOT NULL,
    profile_hash text NOT NULL,
    open_leads integer NOT NULL,
    last_assigned_at timestamptz,
    caps jsonb NOT NULL,
    PRIMARY KEY (rep_id, number)
);
CREATE TABLE rep_profiles (
    profile_hash text PRIMARY KEY,
    profile jsonb NOT NULL
);

UPDATE turns SET balance = round(numerator::numeric * 803134332000 / denominator), since = clock_timestamp();
INSERT INTO fairness_entries (number, queue_id, kind, rep_id, at, units, why, level)
SELECT row_number() OVER (ORDER BY queue_id, rep_id), queue_id, 'opening', rep_id, since, balance,
    'carried over from before the books were kept', 0
FROM turns;
UPDATE turns SET entries = 1;
UPDATE dispatcher SET number = (SELECT count(*) FROM fairness_entries);
"""


def upgrade() -> None:
    """Add the tables, and open the books with what was owed."""
    run_sql(op, TABLES)
