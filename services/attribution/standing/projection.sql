-- Tells whether anything moved that a report reads: each transaction that changes the projection that serves adds a row.
-- How many transactions a snapshot sees is the sum of all rows, whatever they were brought together to. `firm` are those
-- after which not even a moment's old answer may be given. The table is no part of the projection: its sum only grows.
CREATE TABLE IF NOT EXISTS attribution.report_moves (moves bigint NOT NULL, firm bigint NOT NULL);

CREATE OR REPLACE FUNCTION attribution.count_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Once a transaction is enough; what is set ends with it, or with the savepoint that took it back.
    IF coalesce(current_setting('attribution.moved', true), '') NOT IN (TG_ARGV[0], 'firm')
        AND TG_TABLE_SCHEMA IN ('attribution', 'attribution_projection') THEN
        INSERT INTO attribution.report_moves VALUES (1, CASE TG_ARGV[0] WHEN 'firm' THEN 1 ELSE 0 END);
        PERFORM set_config('attribution.moved', TG_ARGV[0], true);
    END IF;
    RETURN NULL;
END
$$;

-- All that reports read. A trigger costs each statement, so that what they do not read has none.
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

-- Nothing of somebody erased is told any more.
CREATE OR REPLACE TRIGGER moved AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON identity_erased
FOR EACH STATEMENT EXECUTE FUNCTION attribution.count_move('firm');
