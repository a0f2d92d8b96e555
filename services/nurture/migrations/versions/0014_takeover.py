"""A human takes over: what shows it, pauses by hand; and what explains a decision."""

from alembic import op

from shared.db import run_sql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A new installation has these from the projections of the features already.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO nurture_projection;
-- What shows that a human has taken over, as others tell it. No row tells when it was written.

-- Of each assignment the newest word. What became of it may come first: then nobody knows yet when it was made.
CREATE TABLE IF NOT EXISTS takeover_assignments (
    assignment_id text PRIMARY KEY,
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    rep_id text NOT NULL,
    assigned_at timestamptz,
    state text NOT NULL,
    settled_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS takeover_assignments_lead ON takeover_assignments (lead_id);

-- Deals as they stand; `people` are the lead's id and those of all who have a part in it.
CREATE TABLE IF NOT EXISTS takeover_deals (
    deal_id text PRIMARY KEY,
    revision bigint NOT NULL,
    lead_id text NOT NULL,
    people text[] NOT NULL,
    status text NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    changed_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS takeover_deals_people ON takeover_deals USING gin (people);

-- Replies, meetings and what reps did: of each touch, and of each type that it was told as, the newest word.
CREATE TABLE IF NOT EXISTS takeover_touches (
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
CREATE INDEX IF NOT EXISTS takeover_touches_lead ON takeover_touches (lead_id, at);

-- Which company each id was last told to be of, and which companies turned out to be others.
CREATE TABLE IF NOT EXISTS lead_accounts (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    account_id text
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS lead_accounts_account ON lead_accounts (account_id) WHERE account_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS merged_accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    into_id text
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS merged_accounts_into ON merged_accounts (into_id) WHERE into_id IS NOT NULL;
-- Every word about consent, with who told it.
CREATE TABLE IF NOT EXISTS consent_words (
    event_id text PRIMARY KEY,
    lead_id text NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    origin text NOT NULL,
    reason text
);
CREATE INDEX IF NOT EXISTS consent_words_lead ON consent_words (lead_id, at);

-- Every stage that was told.
CREATE TABLE IF NOT EXISTS stage_words (
    lead_id text NOT NULL,
    revision bigint NOT NULL,
    stage text NOT NULL,
    previous text,
    at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, revision)
);
"""
OWNED = """
SET LOCAL search_path TO nurture;
-- Pauses that somebody asked for. The reason is sealed with the person's key, where there is one.
CREATE TABLE pauses (
    pause_id text PRIMARY KEY,
    lead_id text NOT NULL,
    reach text NOT NULL CHECK (reach IN ('person', 'account')),
    since timestamptz NOT NULL,
    until timestamptz,
    author text NOT NULL,
    reason text,
    sealed text,
    released_at timestamptz,
    released_by text
);
CREATE INDEX pauses_lead ON pauses (lead_id);
CREATE INDEX pauses_account ON pauses (pause_id) WHERE reach = 'account' AND released_at IS NULL;

-- Pauses that follow from what others told, ended by hand for one person.
CREATE TABLE pause_releases (
    lead_id text NOT NULL,
    pause_id text NOT NULL,
    at timestamptz NOT NULL,
    author text NOT NULL,
    PRIMARY KEY (lead_id, pause_id)
);

-- The version of the policy under which messages were last held.
CREATE TABLE takeover_policy (
    single boolean PRIMARY KEY CHECK (single),
    version integer NOT NULL
);

-- How the last decision about a message was reached, what held it before, and what the provider answered.
ALTER TABLE messages ADD COLUMN decision jsonb;

-- Where a run went at steps that decide, and why.
CREATE TABLE steps_taken (
    enrolment_id text NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step_id text NOT NULL,
    next_step_id text NOT NULL,
    because jsonb NOT NULL,
    PRIMARY KEY (enrolment_id, number)
);
"""


def upgrade() -> None:
    """Make the tables. Those of the projection fill as facts are told; a rebuild fills them with what was told."""
    run_sql(op, PROJECTION)
    run_sql(op, OWNED)
