-- What a touch counts under; `combo_id` is a hash of the rest. `uses` counts the places on paths, so that what nothing
-- counts under any more is forgotten. Combo 0 is what nobody earned.
CREATE TABLE combos (
    combo_id bigint PRIMARY KEY,
    channel text NOT NULL,
    source text NOT NULL,
    medium text NOT NULL,
    campaign text NOT NULL,
    content text NOT NULL,
    landing_page text NOT NULL,
    touch_type text NOT NULL,
    uses bigint NOT NULL
) WITH (fillfactor = 70);
INSERT INTO combos VALUES (
    0, '(unattributed)', '(unattributed)', '(unattributed)', '(unattributed)', '(unattributed)', '(unattributed)',
    '(unattributed)', 0
);

-- The path to each conversion, as far back as any model looks, and what the conversion counts under. The first element
-- of every array stands for nobody: touch NULL, combo 0. Places are array indexes: 2 is the first touch.
CREATE TABLE paths (
    conversion_id text PRIMARY KEY,
    person_id text NOT NULL,
    touch_ids text[] NOT NULL,
    origins text[] NOT NULL,
    combos bigint[] NOT NULL,
    times timestamptz[] NOT NULL,
    lead_place integer,
    deal_place integer,
    conversion_type text NOT NULL,
    currency text NOT NULL,
    value_minor bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    day date NOT NULL,
    country text NOT NULL,
    account text NOT NULL,
    rep text NOT NULL
);
CREATE INDEX paths_time ON paths (occurred_at);
CREATE INDEX paths_account ON paths (account, occurred_at DESC, conversion_id);

-- How each run of a model divided each conversion; the arrays run parallel to those of the path.
CREATE TABLE credits (
    run integer NOT NULL,
    conversion_id text NOT NULL,
    units bigint[] NOT NULL,
    value_minor bigint[] NOT NULL,
    PRIMARY KEY (conversion_id, run)
);

-- The sums of the credits, kept up to date by adding and subtracting: by day and by month (its first day), of the
-- conversion (`c`) and of the touch (`t`), in UTC.
CREATE TABLE credit_sums (
    run integer NOT NULL,
    basis text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    combo_id bigint NOT NULL,
    units bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (run, basis, level, day, currency, conversion_type, combo_id)
) WITH (fillfactor = 70);

-- The sums of the conversions by what belongs to the person or the deal: the same by every model, since the credits of
-- a conversion sum to it.
CREATE TABLE conversion_sums (
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    country text NOT NULL,
    account text NOT NULL,
    rep text NOT NULL,
    conversions bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (level, day, currency, conversion_type, country, account, rep)
) WITH (fillfactor = 70);

-- The same by channel alone, and by country or rep alone: what is asked most, in as many rows however many pages,
-- campaigns and accounts there are.
CREATE TABLE channel_sums (
    run integer NOT NULL,
    basis text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    channel text NOT NULL,
    units bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (run, basis, level, day, currency, conversion_type, channel)
) WITH (fillfactor = 70);

-- The same by what says where a visit came from, which is all that costs are known by: as many rows as there are
-- campaigns, however many pages and contents. `key_id` is a hash of the four.
CREATE TABLE campaign_sums (
    run integer NOT NULL,
    basis text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    key_id bigint NOT NULL,
    channel text NOT NULL,
    source text NOT NULL,
    medium text NOT NULL,
    campaign text NOT NULL,
    units bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (run, basis, level, day, currency, conversion_type, key_id)
) WITH (fillfactor = 70);

CREATE TABLE owner_sums (
    dimension text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    key text NOT NULL,
    conversions bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (dimension, level, day, currency, conversion_type, key)
) WITH (fillfactor = 70);
