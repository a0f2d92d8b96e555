-- Tokens that are taken back before they expire: a `token` by its id, or those of a `subject` that were made before a
-- moment. Whatever is revoked has expired by itself when `expires_at` has passed.
CREATE TABLE revoked_tokens (
    kind text NOT NULL CHECK (kind IN ('token', 'subject')),
    name text NOT NULL,
    issued_before timestamptz,
    revoked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name),
    CHECK ((kind = 'subject') = (issued_before IS NOT NULL))
);
