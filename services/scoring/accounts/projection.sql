-- Companies as they were told last. One that was merged into another is that one.
CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    parent_id text,
    merged_into text,
    industry text,
    employees bigint,
    annual_revenue bigint,
    country text
) WITH (fillfactor = 70);
CREATE INDEX accounts_below ON accounts ((coalesce(merged_into, parent_id)))
    WHERE coalesce(merged_into, parent_id) IS NOT NULL;
CREATE INDEX scores_account ON scores ((lead ->> 'account_id')) WHERE lead ->> 'account_id' IS NOT NULL;
