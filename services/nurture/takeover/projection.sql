-- What shows that a human has taken over, as others tell it. No row tells when it was written.

-- Of each assignment the newest word. What became of it may come first: then nobody knows yet when it was made.
CREATE TABLE takeover_assignments (
    assignment_id text PRIMARY KEY,
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    rep_id text NOT NULL,
    assigned_at timestamptz,
    state text NOT NULL,
    settled_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX takeover_assignments_lead ON takeover_assignments (lead_id);

-- Deals as they stand; `people` are the lead's id and those of all who have a part in it.
CREATE TABLE takeover_deals (
    deal_id text PRIMARY KEY,
    revision bigint NOT NULL,
    lead_id text NOT NULL,
    people text[] NOT NULL,
    status text NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    changed_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX takeover_deals_people ON takeover_deals USING gin (people);

-- Replies, meetings and what reps did: of each touch, and of each type that it was told as, the newest word.
CREATE TABLE takeover_touches (
    origin text NOT NULL,
    touch_id text NOT NULL,
    type text NOT NULL,
    position bigint NOT NULL,
    lead_id text NOT NULL,
    at timestamptz NOT NULL,
    meeting_at timestamptz,
    automated boolean NOT NULL,
    PRIMARY KEY (origin, touch_id, type)
);
CREATE INDEX takeover_touches_lead ON takeover_touches (lead_id, at);

-- Which company each id was last told to be of, and which companies turned out to be others.
CREATE TABLE lead_accounts (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    account_id text
) WITH (fillfactor = 70);
CREATE INDEX lead_accounts_account ON lead_accounts (account_id) WHERE account_id IS NOT NULL;

CREATE TABLE merged_accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    into_id text
) WITH (fillfactor = 70);
CREATE INDEX merged_accounts_into ON merged_accounts (into_id) WHERE into_id IS NOT NULL;
