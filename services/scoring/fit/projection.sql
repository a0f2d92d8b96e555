-- Every profile that was ever told, so that a score can be had as of then.
CREATE TABLE past_profiles (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    captured_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    personal text,
    PRIMARY KEY (lead_id, revision)
);
