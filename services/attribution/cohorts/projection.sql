-- When each person was first heard of, by which channel, and what they bought since, in order; the arrays run parallel.
CREATE TABLE contacts (
    person_id text PRIMARY KEY,
    first_at timestamptz NOT NULL,
    channel text NOT NULL,
    conversion_ids text[] NOT NULL,
    times timestamptz[] NOT NULL,
    currencies text[] NOT NULL,
    values_minor bigint[] NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX contacts_time ON contacts (first_at, channel);
CREATE INDEX contacts_buyers ON contacts (first_at) WHERE conversion_ids <> '{}';

-- How many persons were first heard of in a week or month (its first day, in UTC) by a channel.
CREATE TABLE cohort_sizes (
    level text NOT NULL,
    cohort date NOT NULL,
    channel text NOT NULL,
    people bigint NOT NULL,
    PRIMARY KEY (level, cohort, channel)
) WITH (fillfactor = 70);

-- What they bought so many weeks or months later; `people` are those who did so for the first time, `first_minor` what
-- they spent then. Kept by adding and subtracting; rows that come to zero are removed.
CREATE TABLE cohort_sums (
    level text NOT NULL,
    cohort date NOT NULL,
    channel text NOT NULL,
    currency text NOT NULL,
    age integer NOT NULL,
    people bigint NOT NULL,
    conversions bigint NOT NULL,
    first_minor bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (level, cohort, channel, currency, age)
) WITH (fillfactor = 70);
