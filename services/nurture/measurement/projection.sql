CREATE INDEX milestones_conversions ON milestones (occurred_at) WHERE kind = 'conversion_recorded';

-- What was given back of conversions.
CREATE TABLE refunds (
    origin text NOT NULL,
    refund_id text NOT NULL,
    conversion_id text NOT NULL,
    position bigint NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    PRIMARY KEY (conversion_id, origin, refund_id)
);

-- Answers of people to what they were sent.
CREATE TABLE replies (
    origin text NOT NULL,
    touch_id text NOT NULL,
    lead_id text NOT NULL,
    position bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    automated boolean NOT NULL,
    PRIMARY KEY (origin, touch_id)
);
CREATE INDEX replies_time ON replies (occurred_at);
CREATE INDEX replies_lead ON replies (lead_id);

-- Touches that turned out not to be a person's.
CREATE TABLE withdrawals (
    origin text NOT NULL,
    touch_id text NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (origin, touch_id)
);

-- What attribution credits to opens and clicks of messages; of each conversion and model the newest word.
CREATE TABLE earnings (
    conversion_id text NOT NULL,
    model text NOT NULL,
    revision bigint NOT NULL,
    converted_at timestamptz NOT NULL,
    currency text NOT NULL,
    touch_ids text[] NOT NULL,
    value_minor bigint[] NOT NULL,
    PRIMARY KEY (conversion_id, model)
);
CREATE INDEX earnings_time ON earnings (converted_at) WHERE touch_ids <> '{}';
