-- Sums of the sequences of channels: of paths to conversions, and of journeys that led to nothing (currency ''). Kept by
-- adding and subtracting; rows that come to zero are removed. What a subject is, and its keys, says paths/domain.py.
CREATE TABLE path_sums (
    subject text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    key_id bigint NOT NULL,
    keys text[] NOT NULL,
    journeys bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (subject, level, day, currency, conversion_type, key_id)
) WITH (fillfactor = 70);

-- The same for whole sequences over all time, in the order of their number. Apart, since an index on what is counted
-- makes each update of it cost more.
CREATE TABLE path_ranks (
    subject text NOT NULL,
    currency text NOT NULL,
    key_id bigint NOT NULL,
    keys text[] NOT NULL,
    journeys bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (subject, currency, key_id)
) WITH (fillfactor = 70);
CREATE INDEX path_ranks_most ON path_ranks (subject, currency, journeys DESC, value_minor DESC, key_id);
