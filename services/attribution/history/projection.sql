-- What was told before the facts that stand: with them, all that there ever was to credit a conversion by, so that it
-- can be credited again as of any moment at which something was received.

-- Facts that another one of the same name replaced, or that came after the one that counts. Written only where a name
-- is taken.
CREATE TABLE touch_versions (
    LIKE touches,
    PRIMARY KEY (touch_id, origin, position, received_at)
);
CREATE INDEX touch_versions_lead ON touch_versions (lead_id);

CREATE TABLE conversion_versions (
    LIKE conversions,
    PRIMARY KEY (conversion_id, position, received_at)
);
CREATE INDEX conversion_versions_lead ON conversion_versions (lead_id);

CREATE TABLE refund_versions (
    LIKE refunds,
    PRIMARY KEY (conversion_id, refund_id, position, received_at)
);

-- Who turned out to be whom: `linked` (an anonymous id is somebody's from then on), `merged`, `unmerged` or `erased`
-- (then `into_id` is null).
CREATE TABLE identity_log (
    event_id text PRIMARY KEY,
    kind text NOT NULL,
    lead_id text NOT NULL,
    into_id text,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX identity_log_lead ON identity_log (lead_id);
CREATE INDEX identity_log_into ON identity_log (into_id);

-- What profiles said of which crediting makes use, one row per revision.
CREATE TABLE profile_log (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    captured_at timestamptz NOT NULL,
    country text,
    account_id text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, revision)
);

-- When deals were created and whose they are, one row per revision.
CREATE TABLE deal_log (
    deal_id text NOT NULL,
    revision bigint NOT NULL,
    opened_at timestamptz NOT NULL,
    rep_id text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (deal_id, revision)
);
