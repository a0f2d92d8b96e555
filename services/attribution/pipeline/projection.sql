-- Who was given a lead, by when to answer, and how they answered. An answer may come before its assignment: then only the
-- id is known, and `lead_id` is null.
CREATE TABLE assignments (
    assignment_id text PRIMARY KEY,
    lead_id text,
    rep_id text,
    revision bigint,
    assigned_at timestamptz,
    due_at timestamptz,
    teams text[],
    accepted_at timestamptz,
    rejected_at timestamptz,
    expired_at timestamptz
);
CREATE INDEX assignments_lead ON assignments (lead_id, assigned_at);

-- Every change of a lead's stage.
CREATE TABLE stage_changes (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    stage text NOT NULL,
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (lead_id, revision)
);

-- Every change of a deal.
CREATE TABLE deal_steps (
    deal_id text NOT NULL,
    revision bigint NOT NULL,
    at timestamptz NOT NULL,
    status text NOT NULL,
    stage text NOT NULL,
    probability integer NOT NULL,
    value_minor bigint NOT NULL,
    currency text NOT NULL,
    recurring_minor bigint NOT NULL,
    rep_id text,
    teams text[] NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    pipeline_stages text[] NOT NULL,
    event_id text NOT NULL,
    begins bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (deal_id, revision)
);
CREATE INDEX deal_steps_time ON deal_steps (at);
CREATE INDEX deals_lead ON deals (lead_id);
CREATE INDEX touches_contacts ON touches (lead_id, occurred_at) WHERE NOT automated AND type IN (
    'call_attempted', 'call_connected', 'meeting_booked', 'meeting_held', 'rep_emailed', 'rep_messaged'
);

-- Ids whose persons are to be counted at the end of a rebuild; else nobody is owed anything.
CREATE TABLE people_owed (lead_id text PRIMARY KEY);

-- What the marks of a person count under.
CREATE TABLE circumstances (
    person_id text PRIMARY KEY,
    channel text NOT NULL,
    source text NOT NULL,
    campaign text NOT NULL,
    country text NOT NULL,
    account text NOT NULL DEFAULT '(not set)'
) WITH (fillfactor = 80);

-- Everything that the reports of the pipeline count, one row each; `ref` is the deal, assignment or conversion.
CREATE TABLE marks (
    person_id text NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    ref text NOT NULL,
    at timestamptz NOT NULL,
    rep text NOT NULL,
    teams text[] NOT NULL,
    currency text NOT NULL,
    number integer NOT NULL,
    value_minor bigint NOT NULL,
    weighted_minor bigint NOT NULL,
    lapse bigint, -- microseconds
    bucket smallint NOT NULL,
    PRIMARY KEY (person_id, kind, ref, step, at)
);
CREATE INDEX marks_time ON marks (kind, at);
CREATE INDEX marks_due ON marks (((at AT TIME ZONE 'UTC') + lapse * interval '1 microsecond'))
    WHERE kind = 'sla' AND step = 'pending';
CREATE INDEX marks_ref ON marks (ref) WHERE ref <> '';

-- The sums of the marks, kept up to date by adding and subtracting: by day and by month (its first day) of UTC.
CREATE TABLE mark_sums (
    kind text NOT NULL,
    dimension text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    key text NOT NULL,
    step text NOT NULL,
    bucket smallint NOT NULL,
    currency text NOT NULL,
    number bigint NOT NULL,
    value_minor numeric NOT NULL,
    weighted_minor numeric NOT NULL,
    microseconds numeric NOT NULL,
    PRIMARY KEY (kind, dimension, level, day, key, step, bucket, currency)
) WITH (fillfactor = 70);
