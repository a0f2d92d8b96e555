"""When reps can be given leads, who left, and why leads wait."""

from alembic import op

from shared.db import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

ALTER TABLE reps ADD COLUMN daily_capacity integer;
ALTER TABLE reps ADD COLUMN weekly_capacity integer;
ALTER TABLE reps ADD COLUMN monthly_capacity integer;
ALTER TABLE reps ADD COLUMN holidays jsonb;
-- Names the content of rep_calendars.busy, so that a calendar is made anew when that is another.
ALTER TABLE reps ADD COLUMN busy_digest text;
ALTER TABLE reps ADD COLUMN left_at timestamptz;
ALTER TABLE reps ADD COLUMN left_because text;

-- The company's own holidays; `digest` names the content of `days`.
CREATE TABLE company_days (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    digest text NOT NULL,
    days jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);

-- What reps' own calendars say. `content` has the times of events and nothing else, `busy` what they come to until
-- `expanded_on` and a while after it. `read_at` is the age of this copy, `checked_at` when it was looked for last.
CREATE TABLE rep_calendars (
    rep_id text PRIMARY KEY,
    version bigint NOT NULL,
    source text NOT NULL,
    address text,
    host text,
    etag text,
    last_modified text,
    content text,
    content_digest text,
    busy jsonb,
    busy_digest text,
    expanded_on date,
    events integer,
    read_at timestamptz,
    checked_at timestamptz,
    error text,
    failing_since timestamptz,
    failures integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX rep_calendars_due ON rep_calendars (next_at);
CREATE INDEX rep_calendars_busy ON rep_calendars (busy_digest) WHERE busy_digest IS NOT NULL;

-- How many leads each rep was given on each day (UTC), without those given back or taken away: caps are counted from
-- this, so that a decision looks at a rep's days and not at their leads.
CREATE TABLE given_days (
    rep_id text NOT NULL,
    day date NOT NULL,
    leads integer NOT NULL,
    PRIMARY KEY (rep_id, day)
) WITH (fillfactor = 70);

CREATE FUNCTION counts_as_given(state text, end_reason text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $body$
    SELECT state IN ('offered', 'accepted') AND coalesce(end_reason, '') NOT IN ('reassigned', 'merged', 'replaced')
$body$;

CREATE FUNCTION count_given() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
BEGIN
    IF TG_OP = 'UPDATE' AND counts_as_given(OLD.state, OLD.end_reason) THEN
        UPDATE given_days SET leads = leads - 1
        WHERE rep_id = OLD.rep_id AND day = (OLD.assigned_at AT TIME ZONE 'UTC')::date;
    END IF;
    IF counts_as_given(NEW.state, NEW.end_reason) THEN
        INSERT INTO given_days AS known (rep_id, day, leads)
        VALUES (NEW.rep_id, (NEW.assigned_at AT TIME ZONE 'UTC')::date, 1)
        ON CONFLICT (rep_id, day) DO UPDATE SET leads = known.leads + 1;
    END IF;
    RETURN NULL;
END
$body$;
CREATE TRIGGER assignments_given AFTER INSERT ON assignments FOR EACH ROW EXECUTE FUNCTION count_given();
CREATE TRIGGER assignments_given_back AFTER UPDATE OF rep_id, state, end_reason ON assignments FOR EACH ROW
    WHEN (
        OLD.rep_id <> NEW.rep_id
        OR counts_as_given(OLD.state, OLD.end_reason) <> counts_as_given(NEW.state, NEW.end_reason)
    )
    EXECUTE FUNCTION count_given();
INSERT INTO given_days (rep_id, day, leads)
SELECT rep_id, (assigned_at AT TIME ZONE 'UTC')::date, count(*) FROM assignments
WHERE counts_as_given(state, end_reason) AND assigned_at > now() - interval '100 days' GROUP BY 1, 2;

-- What the calendars that decisions saw were made of.
CREATE TABLE rep_schedules (
    digest text PRIMARY KEY,
    made_of jsonb NOT NULL
);

-- Reps who left and whose leads are being given to others.
CREATE TABLE reroutes (
    rep_id text PRIMARY KEY,
    reason text NOT NULL,
    asked_at timestamptz NOT NULL
);

ALTER TABLE holds ADD COLUMN why text NOT NULL DEFAULT 'nobody';
"""


def upgrade() -> None:
    """Add what is not there; what reps were given lately is counted."""
    run_sql(op, TABLES)
