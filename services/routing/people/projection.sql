-- The scores that the scoring document names beside the main one, by id, at the newest stage change that told any.
CREATE TABLE lead_scores (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    scores jsonb NOT NULL
) WITH (fillfactor = 70);
-- The segments that people are in, as they were told last.
CREATE TABLE segments (
    lead_id text NOT NULL,
    segment_id text NOT NULL,
    revision bigint NOT NULL,
    member boolean NOT NULL,
    PRIMARY KEY (lead_id, segment_id)
);
