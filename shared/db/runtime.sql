-- The runtime's own tables, in every service's schema.

CREATE TABLE event_log (
    log smallint NOT NULL,
    position bigint NOT NULL,
    event_id text NOT NULL,
    topic text NOT NULL,
    key text NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    occurred_at text NOT NULL,
    traceparent text,
    value bytea,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (recorded_at);
CREATE INDEX event_log_position ON event_log (log, position);
CREATE TABLE event_log_default PARTITION OF event_log DEFAULT;
CREATE SEQUENCE event_log_position_0;
CREATE SEQUENCE event_log_position_1;

-- Positions are drawn under the lock, which is the last thing a transaction takes: position order is commit order.
-- `kind` is a place in `topics` and `types`; `subjects` may be NULL where they are the keys, `traces` where there are none.
CREATE FUNCTION append_events(
    namespace integer, which smallint, topics text[], types text[], kinds smallint[], event_ids text[], keys text[],
    subjects text[], times text[], traces text[], "values" bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    positions regclass := 'event_log_position_' || which;
BEGIN
    PERFORM pg_advisory_xact_lock(namespace, which::integer);
    INSERT INTO event_log (log, position, event_id, topic, key, type, subject, occurred_at, traceparent, value)
    SELECT which, nextval(positions), e, topics[kind], k, types[kind], coalesce(s, k), o, r, v
    FROM unnest(kinds, event_ids, keys, subjects, times, traces, "values") AS u (kind, e, k, s, o, r, v);
END
$$;

CREATE TABLE relay_cursors (
    log smallint PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0
);
INSERT INTO relay_cursors (log) VALUES (0), (1);

-- The last record of each partition that the broker acknowledged to this service: how a lost tail is noticed.
CREATE TABLE relay_marks (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    event_id text NOT NULL,
    timestamp_ms bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- How often a partition lost records, and from where on they were published again: consumers that had read further go
-- back there when a watermark tells them.
CREATE TABLE relay_repairs (
    topic text NOT NULL,
    partition integer NOT NULL,
    number bigint NOT NULL,
    "offset" bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE leases (
    name text PRIMARY KEY,
    owner text NOT NULL,
    epoch bigint NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL
);

CREATE TABLE projections (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version smallint NOT NULL DEFAULT 1,
    built_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO projections DEFAULT VALUES;

CREATE TABLE consumer_positions (
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    last_event_id text,
    last_timestamp_ms bigint,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50);

CREATE TABLE inbox (
    day date NOT NULL,
    version smallint NOT NULL,
    event_id text NOT NULL,
    UNIQUE (day, version, event_id)
) PARTITION BY RANGE (day);
CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;

CREATE TABLE parked_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    key text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    value bytea NOT NULL,
    slug text NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    -- A rebuild has folded it; what is outstanding are the decisions that follow from it.
    folded boolean NOT NULL DEFAULT false,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (consumer, event_id)
);
CREATE INDEX parked_events_key ON parked_events (consumer, key, id);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    headers jsonb NOT NULL,
    value bytea,
    error text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (consumer, topic, partition, "offset")
);

CREATE TABLE audit_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE idempotency_keys (
    scope text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status integer,
    content_type text,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, key)
);

CREATE TABLE feed_watermarks (
    topic text NOT NULL,
    partition integer NOT NULL,
    source text NOT NULL,
    at timestamptz NOT NULL,
    repair bigint NOT NULL DEFAULT 0,
    appended_ms bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition, source)
) WITH (fillfactor = 50);

CREATE TABLE person_keys (
    lead_id text PRIMARY KEY,
    wrapped_key text,
    destroyed_at timestamptz
);
CREATE INDEX person_keys_destroyed ON person_keys (lead_id) WHERE destroyed_at IS NOT NULL;

CREATE TABLE installation (
    name text PRIMARY KEY,
    value text NOT NULL
);
