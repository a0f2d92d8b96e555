-- Every word about consent, with who told it.
CREATE TABLE consent_words (
    event_id text PRIMARY KEY,
    lead_id text NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    origin text NOT NULL,
    reason text
);
CREATE INDEX consent_words_lead ON consent_words (lead_id, at);

-- Every stage that was told.
CREATE TABLE stage_words (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    stage text NOT NULL,
    previous text,
    at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, revision)
);
