-- Conversions whose credits are to be brought up to date later, since it was too much for the transaction that changed
-- what they follow from. `touches`: how many at most are on the path. `as_of`: until when everything that was told is in
-- what is stored.
CREATE TABLE credit_debts (
    conversion_id text PRIMARY KEY,
    touches integer NOT NULL,
    person_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    as_of timestamptz
);
CREATE INDEX credit_debts_turn ON credit_debts (touches, person_id, occurred_at, conversion_id);
