-- What scoring folds from facts. No column tells when or how a row was written: a rebuild makes the same rows.

-- The minimum of each touch, to score it again under other rules or another person.
CREATE TABLE touches (
    origin text NOT NULL,
    touch_id text NOT NULL,
    lead_id text NOT NULL,
    event_id text NOT NULL,
    position bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    type text NOT NULL,
    channel text,
    source text,
    medium text,
    campaign text,
    content text,
    page text,
    referrer_host text,
    automated boolean NOT NULL,
    personal text,
    PRIMARY KEY (origin, touch_id)
);
CREATE INDEX touches_lead ON touches (lead_id, occurred_at);

CREATE TABLE profiles (
    lead_id text PRIMARY KEY,
    event_id text NOT NULL,
    revision bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    captured_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    personal text,
    erased boolean NOT NULL DEFAULT false
);

CREATE TABLE consents (
    lead_id text NOT NULL,
    channel text NOT NULL,
    state text NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, channel)
);

CREATE TABLE assignments (
    assignment_id text PRIMARY KEY,
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    state text NOT NULL,
    settled_at timestamptz,
    id_from bigint NOT NULL DEFAULT 0
);
CREATE INDEX assignments_lead ON assignments (lead_id);

CREATE TABLE deals (
    deal_id text PRIMARY KEY,
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    status text NOT NULL,
    opened_at timestamptz,
    closed_at timestamptz
);
CREATE INDEX deals_lead ON deals (lead_id);

-- One row a person: what all facts of the person's ids come to, under the rules of one version.
CREATE TABLE scores (
    person_id text PRIMARY KEY,
    rules_version integer NOT NULL,
    sums jsonb NOT NULL,
    newest timestamptz,
    raised_at timestamptz,
    raised_until timestamptz,
    types jsonb NOT NULL,
    fit integer NOT NULL,
    grade text NOT NULL,
    fit_rules jsonb NOT NULL,
    fit_event_id text,
    fit_at timestamptz,
    profile_revision bigint NOT NULL DEFAULT 0,
    lead jsonb NOT NULL,
    assignment text,
    deal text,
    rejected_at timestamptz,
    settled_at timestamptz,
    -- When somebody was last connected with the person, and the attempts since; in microseconds.
    connected_at bigint,
    attempts bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70);
CREATE INDEX scores_rules ON scores (rules_version);

-- The paid matches of rules with a limit, by person, rule and UTC day; year 1 stands for a limit on the whole life.
CREATE TABLE limited_days (
    person_id text NOT NULL,
    rule_id text NOT NULL,
    day date NOT NULL,
    paid jsonb NOT NULL,
    more boolean NOT NULL,
    PRIMARY KEY (person_id, rule_id, day)
) WITH (fillfactor = 70);

-- The version of the rules that all rows of persons were made under, and that new ones are made under.
CREATE TABLE serving_rules (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL
);
