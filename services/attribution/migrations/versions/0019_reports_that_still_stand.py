"""Count the transactions that move what reports read."""

from alembic import op

from shared.db import run_sql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# A new installation has it already, from the projection as it stands.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;
CREATE TABLE IF NOT EXISTS attribution.report_moves (moves bigint NOT NULL, firm bigint NOT NULL);

CREATE OR REPLACE FUNCTION attribution.count_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('attribution.moved', true), '') NOT IN (TG_ARGV[0], 'firm')
        AND TG_TABLE_SCHEMA IN ('attribution', 'attribution_projection') THEN
        INSERT INTO attribution.report_moves VALUES (1, CASE TG_ARGV[0] WHEN 'firm' THEN 1 ELSE 0 END);
        PERFORM set_config('attribution.moved', TG_ARGV[0], true);
    END IF;
    RETURN NULL;
END
$$;

DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY[
        'channel_sums', 'campaign_sums', 'credit_sums', 'owner_sums', 'conversion_sums', 'combos', 'paths', 'credits',
        'path_sums', 'path_ranks', 'remainders', 'contacts', 'cohort_sizes', 'cohort_sums', 'costs',
        'mark_sums', 'marks', 'circumstances', 'deal_steps'
    ] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER moved AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION attribution.count_move(''loose'')', one);
    END LOOP;
END
$$;

CREATE OR REPLACE TRIGGER moved AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON identity_erased
FOR EACH STATEMENT EXECUTE FUNCTION attribution.count_move('firm');
SET LOCAL search_path TO attribution;
"""

# What somebody decided counts at once. Workers ask these tables every moment and mostly change nothing: so by row.
OWNED = """
CREATE TRIGGER moved AFTER INSERT OR DELETE OR UPDATE OF state ON model_runs
FOR EACH ROW EXECUTE FUNCTION count_move('firm');

CREATE TRIGGER moved AFTER INSERT OR DELETE OR UPDATE ON exchange_rates
FOR EACH ROW EXECUTE FUNCTION count_move('firm');

CREATE TRIGGER moved AFTER INSERT OR DELETE OR UPDATE ON channel_totals
FOR EACH ROW EXECUTE FUNCTION count_move('loose');
"""


def upgrade() -> None:
    """Make the table, and what counts."""
    run_sql(op, PROJECTION + OWNED)
