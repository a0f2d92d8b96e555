-- Touches that turned out to be a machine's; told before or after the touch itself.
CREATE TABLE withdrawals (
    origin text NOT NULL,
    touch_id text NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (origin, touch_id)
);
