"""Webhooks to other systems, and what keeps the time of reps."""

from alembic import op

from shared.db import run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WEBHOOKS = """
SET LOCAL lock_timeout = '5s';

CREATE TABLE webhook_endpoints (
    endpoint_id text PRIMARY KEY,
    url text NOT NULL,
    description text NOT NULL,
    state text NOT NULL DEFAULT 'active',
    reason text,
    failures integer NOT NULL DEFAULT 0,
    changed_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX webhook_endpoints_in_order ON webhook_endpoints (created_at, endpoint_id);

CREATE TABLE webhook_secrets (
    endpoint_id text NOT NULL,
    n integer NOT NULL,
    sealed text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (endpoint_id, n)
);

-- What is for an endpoint. Of those with one key only the first that waits is tried.
CREATE TABLE webhook_deliveries (
    endpoint_id text NOT NULL,
    delivery_id text NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    ordering_key text,
    body bytea,
    sealed text,
    sealed_for text,
    state text NOT NULL DEFAULT 'waiting',
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    claim text,
    status integer,
    said text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    PRIMARY KEY (endpoint_id, delivery_id)
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at, place) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_lane ON webhook_deliveries (endpoint_id, ordering_key, place)
    WHERE state = 'waiting' AND ordering_key IS NOT NULL;
CREATE INDEX webhook_deliveries_in_order ON webhook_deliveries (endpoint_id, place);
CREATE INDEX webhook_deliveries_of ON webhook_deliveries (ordering_key) WHERE ordering_key IS NOT NULL;
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (created_at) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_settled ON webhook_deliveries (settled_at) WHERE settled_at IS NOT NULL;

CREATE TABLE webhook_tries (
    endpoint_id text NOT NULL,
    delivery_id text NOT NULL,
    n integer NOT NULL,
    at timestamptz NOT NULL,
    status integer,
    said text NOT NULL,
    took_ms integer NOT NULL,
    PRIMARY KEY (endpoint_id, delivery_id, n)
);
"""

CLOCKS = """
ALTER TABLE assignments ADD COLUMN accepted_at timestamptz;
ALTER TABLE assignments ADD COLUMN touched_at timestamptz;

-- The time an assignment has, as steps; `act` and `due_at` are those of the first that is left.
CREATE TABLE clocks (
    assignment_id text NOT NULL,
    clock text NOT NULL,
    started_at timestamptz NOT NULL,
    minutes integer NOT NULL,
    steps jsonb NOT NULL,
    act text NOT NULL,
    due_at timestamptz NOT NULL,
    delay interval NOT NULL DEFAULT '0',
    graces integer NOT NULL DEFAULT 0,
    PRIMARY KEY (assignment_id, clock)
) WITH (fillfactor = 70);
CREATE INDEX clocks_due ON clocks (due_at) WHERE act <> 'reroute';
CREATE INDEX clocks_reroutes ON clocks (due_at) WHERE act = 'reroute';

-- Offers of an earlier version: when their time is over they go to the next rep, as they would have.
INSERT INTO clocks (assignment_id, clock, started_at, minutes, steps, act, due_at)
SELECT assignment_id, 'accept', assigned_at, 0, '[{"at": 100, "act": "reroute", "notify": ["rep"]}]', 'reroute', due_at
FROM assignments WHERE state = 'offered' AND ended_at IS NULL AND due_at IS NOT NULL;

CREATE INDEX assignments_untouched ON assignments (touch_due_at)
    WHERE state = 'accepted' AND ended_at IS NULL AND touched_at IS NULL;
CREATE INDEX assignments_held ON assignments (rep_id) WHERE ended_at IS NULL;

-- How fast each assignment was answered, and whether in time.
CREATE TABLE responses (
    assignment_id text NOT NULL,
    clock text NOT NULL,
    rep_id text NOT NULL,
    assigned_at timestamptz NOT NULL,
    due_at timestamptz,
    took_s integer,
    worked_s integer,
    kept boolean,
    PRIMARY KEY (assignment_id, clock)
) WITH (fillfactor = 90);
CREATE INDEX responses_of_reps ON responses (rep_id, assigned_at) INCLUDE (clock, took_s, worked_s, kept);
"""
NOTIFICATIONS = """
-- Who is to be told what, once. A worker makes notifications of it, by the channels each rep wants.
CREATE TABLE notices (
    about text NOT NULL,
    kind text NOT NULL,
    step integer NOT NULL,
    audience text NOT NULL,
    lead_id text NOT NULL,
    created_at timestamptz NOT NULL,
    expanded_at timestamptz,
    PRIMARY KEY (about, kind, step, audience)
) WITH (fillfactor = 90);
CREATE INDEX notices_new ON notices (created_at) WHERE expanded_at IS NULL;

ALTER TABLE reps ADD COLUMN manager_id text;
ALTER TABLE holds ADD COLUMN queue text;
ALTER TABLE holds ADD COLUMN claimants text[];
CREATE INDEX holds_claimable ON holds (queue, since, person_id) WHERE claimants IS NOT NULL;

-- How a rep wants to be told. Addresses in Slack are secrets, and sealed.
CREATE TABLE rep_notifications (
    rep_id text PRIMARY KEY,
    channels jsonb NOT NULL,
    slack_user_id text,
    slack_url text,
    endpoint_id text,
    updated_at timestamptz NOT NULL
);

-- The ledger of what reps are told: a row is committed, claimed, before anything is called.
CREATE TABLE notifications (
    notification_id text PRIMARY KEY,
    place bigint GENERATED ALWAYS AS IDENTITY,
    about text NOT NULL,
    kind text NOT NULL,
    step integer NOT NULL,
    rep_id text NOT NULL,
    channel text NOT NULL,
    lead_id text NOT NULL,
    endpoint_id text,
    state text NOT NULL,
    reason text,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    claim text,
    claim_until timestamptz,
    slack_channel text,
    slack_ts text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    UNIQUE (about, kind, step, rep_id, channel)
) WITH (fillfactor = 70);
CREATE INDEX notifications_due ON notifications (channel, due_at) WHERE state = 'planned' AND claim_until IS NULL;
CREATE INDEX notifications_claimed ON notifications (claim_until) WHERE state = 'planned' AND claim_until IS NOT NULL;
CREATE INDEX notifications_webhooks ON notifications (endpoint_id, notification_id)
    WHERE channel = 'webhook' AND state = 'planned';
CREATE INDEX notifications_in_order ON notifications (place);
CREATE INDEX notifications_rep ON notifications (rep_id, place);
CREATE INDEX notifications_lead ON notifications (lead_id, place);

-- What is to be answered in Slack after a click.
CREATE TABLE slack_replies (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url text NOT NULL,
    content jsonb NOT NULL,
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0
);
CREATE INDEX slack_replies_due ON slack_replies (due_at, place);
"""


def upgrade() -> None:
    """Add the tables, and a clock for every offer that waits for an answer."""
    run_sql(op, WEBHOOKS + CLOCKS + NOTIFICATIONS)
