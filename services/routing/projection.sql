-- What routing folds from other services' facts. Facts keep the id they came with; reading resolves it.

CREATE TABLE profiles (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    captured_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    personal text
) WITH (fillfactor = 70);

CREATE TABLE consents (
    lead_id text NOT NULL,
    channel text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, channel)
);

-- The stage entered last, with the scores that decided it: what rules see of `score`.
CREATE TABLE standings (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    stage text NOT NULL,
    engagement double precision NOT NULL,
    fit integer NOT NULL,
    total double precision NOT NULL,
    grade text NOT NULL,
    entered_at timestamptz
) WITH (fillfactor = 70);

-- Companies as they were told last. One that was merged into another is that one.
CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    parent_id text,
    merged_into text,
    name text,
    domain text,
    owner_id text,
    industry text,
    employees bigint,
    annual_revenue bigint,
    country text
) WITH (fillfactor = 70);
