-- Who was given a lead, by when to answer.
CREATE TABLE assignments (
    assignment_id text PRIMARY KEY,
    lead_id text NOT NULL,
    rep_id text NOT NULL,
    revision bigint NOT NULL,
    assigned_at timestamptz NOT NULL,
    due_at timestamptz
);
CREATE INDEX assignments_lead ON assignments (lead_id, assigned_at);
