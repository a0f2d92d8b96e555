"""Channel groupings, and exports of journeys and credits."""

from alembic import op

from shared.db import run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# What touches that are there already were grouped by is told by the rule that decided, as far as it matters.
TOUCHES = """
SET LOCAL lock_timeout = '10s';
SET LOCAL search_path TO attribution_projection;
ALTER TABLE {table}
    ADD COLUMN IF NOT EXISTS given_channel text,
    ADD COLUMN IF NOT EXISTS referrer_host text,
    ADD COLUMN IF NOT EXISTS click_ids text,
    ADD COLUMN IF NOT EXISTS tagged boolean NOT NULL DEFAULT true;
UPDATE {table} SET
    given_channel = CASE WHEN channel_rule = 'caller' THEN channel END,
    referrer_host = CASE WHEN channel_rule LIKE '%:referrer' THEN source END,
    click_ids = CASE WHEN channel_rule ~ ':[a-z_]+id$' THEN split_part(channel_rule, ':', 2) END,
    tagged = CASE
        WHEN source IS NULL AND medium IS NULL OR channel_rule LIKE '%:referrer' THEN false
        ELSE (split_part(channel_rule, ':', 2), source, medium) NOT IN (
            ('gclid', 'google', 'cpc'), ('gbraid', 'google', 'cpc'), ('wbraid', 'google', 'cpc'),
            ('msclkid', 'bing', 'cpc'), ('ttclid', 'tiktok', 'paid'), ('li_fat_id', 'linkedin', 'paid'),
            ('fbclid', 'facebook', 'referral'))
    END;
"""
OWNED = """
SET LOCAL search_path TO attribution;
-- How far the touches of the serving projection are grouped by the active version of the channel grouping and by these
-- default rules. `begun_in` is the transaction that began the walk; `after_…` the last touch done.
CREATE TABLE regroupings (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL,
    rules text NOT NULL,
    projection smallint NOT NULL,
    begun_in bigint NOT NULL,
    total bigint NOT NULL,
    after_touch text NOT NULL DEFAULT '',
    after_origin text NOT NULL DEFAULT '',
    done bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);

-- What is to be written out for others. `after` is the last row of the last part; `done` and `total` count touches or
-- conversions; `failures` how often the writing began since the last part.
CREATE TABLE exports (
    export_id text PRIMARY KEY,
    kind text NOT NULL,
    format text NOT NULL,
    model text,
    from_at timestamptz,
    to_at timestamptz,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    parts integer NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    total bigint,
    bytes bigint NOT NULL DEFAULT 0,
    after json,
    snapshots integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX exports_newest ON exports (created_at, export_id);

-- A part has no content any more once somebody was erased whose touches may be in it: whose id is between these two.
CREATE TABLE export_parts (
    export_id text NOT NULL REFERENCES exports ON DELETE CASCADE,
    number integer NOT NULL,
    rows bigint NOT NULL,
    size bigint NOT NULL,
    etag text NOT NULL,
    read_at timestamptz NOT NULL,
    first_lead text,
    last_lead text,
    content bytea,
    PRIMARY KEY (export_id, number)
);
ALTER TABLE export_parts ALTER COLUMN content SET STORAGE EXTERNAL;

-- Conversions whose credits by these runs changed and are to be told, and how far all conversions are told by the run
-- of a model that serves.
CREATE TABLE credit_changes (
    change bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversion_ids text[] NOT NULL,
    runs integer[] NOT NULL
);
CREATE TABLE credits_told (
    model text PRIMARY KEY,
    run integer NOT NULL,
    after text NOT NULL DEFAULT '',
    finished boolean NOT NULL DEFAULT false
);
CREATE SEQUENCE credits_revision;
"""


def upgrade() -> None:
    """Make the tables."""
    for table in ("touches", "touch_versions"):
        run_sql(op, TOUCHES.format(table=table))
    run_sql(op, OWNED)
