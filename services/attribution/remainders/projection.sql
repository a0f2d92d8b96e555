-- Of each person the channels after their last conversion, runs as one visit: the journey that is counted as lost.
CREATE TABLE remainders (
    person_id text PRIMARY KEY,
    last_at timestamptz NOT NULL,
    channels text[] NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX remainders_time ON remainders (last_at);
