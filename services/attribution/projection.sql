-- What attribution folds from the facts: journeys, conversions and what they cost. Facts keep the id they came with;
-- reading resolves it. What follows from them stands with `credits`.

-- One row per id that any fact came with. Its lock orders what is told about a person: a touch takes that of its own id,
-- crediting takes those of all ids of the person, so that neither misses the other.
CREATE TABLE leads (
    lead_id text PRIMARY KEY,
    revision bigint,
    captured_at timestamptz,
    erased boolean NOT NULL DEFAULT false,
    country text,
    account_id text
) WITH (fillfactor = 70);

-- `given_channel` to `tagged` are what the channel followed from, beside what stands before them; `tagged` says that
-- source and medium came with the touch and were not found by its click ids (separated by blanks) or its referrer.
-- `withdrawn` says that `automated` was not told with the touch, but by a withdrawal.
CREATE TABLE touches (
    origin text NOT NULL,
    touch_id text NOT NULL,
    position bigint NOT NULL,
    lead_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    type text NOT NULL,
    channel text NOT NULL,
    channel_rule text NOT NULL,
    source text,
    medium text,
    campaign text,
    content text,
    page text,
    automated boolean NOT NULL,
    given_channel text,
    referrer_host text,
    click_ids text,
    tagged boolean NOT NULL DEFAULT true,
    automated_reason text,
    withdrawn boolean NOT NULL DEFAULT false,
    PRIMARY KEY (touch_id, origin)
);
CREATE INDEX touches_journey ON touches (lead_id, occurred_at);

-- A refund may come before its conversion: then only the id is known, and `lead_id` is null.
CREATE TABLE conversions (
    conversion_id text PRIMARY KEY,
    position bigint NOT NULL DEFAULT -1,
    origin text,
    external_id text,
    lead_id text,
    type text,
    value_minor bigint,
    currency text,
    occurred_at timestamptz,
    received_at timestamptz,
    deal_id text
) WITH (fillfactor = 80);
CREATE INDEX conversions_journey ON conversions (lead_id, occurred_at);
CREATE INDEX conversions_time ON conversions (occurred_at);
CREATE INDEX conversions_deal ON conversions (deal_id) WHERE deal_id IS NOT NULL;

CREATE TABLE refunds (
    conversion_id text NOT NULL,
    refund_id text NOT NULL,
    position bigint NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (conversion_id, refund_id)
);

CREATE TABLE deals (
    deal_id text PRIMARY KEY,
    revision bigint NOT NULL,
    lead_id text NOT NULL,
    opened_at timestamptz NOT NULL,
    rep_id text
) WITH (fillfactor = 70);

CREATE TABLE costs (
    day date NOT NULL,
    channel text NOT NULL,
    campaign text NOT NULL,
    currency text NOT NULL,
    origin text NOT NULL,
    position bigint NOT NULL,
    received_at timestamptz NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (day, channel, campaign, currency, origin)
);
