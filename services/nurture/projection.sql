-- What nurture folds from other services' facts. Facts keep the id they came with; reading resolves it.

CREATE TABLE profiles (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    captured_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    personal text
) WITH (fillfactor = 70);

-- What is said about marketing.
CREATE TABLE consents (
    lead_id text NOT NULL,
    channel text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, channel)
);

-- The same for purposes other than marketing.
CREATE TABLE purpose_consents (
    lead_id text NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, channel, purpose)
);

CREATE TABLE stages (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    stage text NOT NULL
) WITH (fillfactor = 70);

-- Facts that may end a run, whenever they arrive: conversions and accepted assignments.
CREATE TABLE milestones (
    kind text NOT NULL,
    fact_id text NOT NULL,
    lead_id text NOT NULL,
    position bigint NOT NULL,
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    PRIMARY KEY (kind, fact_id)
);
CREATE INDEX milestones_lead ON milestones (lead_id, occurred_at);
