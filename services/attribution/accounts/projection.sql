-- Accounts, and which of them became another one. Whoever lives is told a new account; of the erased nothing is told any
-- more, so that theirs is followed here.
CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    merged_into text
);
CREATE INDEX accounts_merged ON accounts (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX leads_erased ON leads (account_id) WHERE erased;
