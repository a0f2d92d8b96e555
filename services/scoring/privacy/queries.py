"""The statements about what scoring holds of a person."""

COUNTS = """
SELECT (SELECT count(*) FROM profiles WHERE lead_id = $1 AND NOT erased) AS profiles,
       (SELECT count(*) FROM touches WHERE lead_id = $1 AND personal IS NOT NULL) AS touch_details,
       (SELECT count(*) FROM consents WHERE lead_id = $1) AS consents,
       (SELECT count(*) FROM segment_members WHERE person_id = $1)
           + (SELECT count(*) FROM segment_listed WHERE lead_id = $1) AS segments,
       (SELECT count(*) FROM past_profiles WHERE lead_id = $1) AS past_profiles,
       (SELECT count(*) FROM stage_decisions WHERE lead_id = $1) AS stage_decisions,
       (SELECT count(*) FROM touches WHERE lead_id = $1) AS touches,
       (SELECT count(*) FROM scores WHERE person_id = $1) AS scores,
       (SELECT count(*) FROM stage_changes WHERE person_id = $1) AS stage_changes
"""
HELD = {
    "profiles": "SELECT * FROM profiles WHERE lead_id = ANY($1)",
    "past_profiles": "SELECT * FROM past_profiles WHERE lead_id = ANY($1) ORDER BY lead_id, revision",
    "consents": "SELECT * FROM consents WHERE lead_id = ANY($1)",
    "touches": "SELECT * FROM touches WHERE lead_id = ANY($1) ORDER BY occurred_at, touch_id",
    "scores": "SELECT * FROM scores WHERE person_id = ANY($1)",
    "stages": "SELECT * FROM standings WHERE person_id = ANY($1)",
    "segments": "SELECT * FROM segment_members WHERE person_id = ANY($1) ORDER BY person_id, segment_id",
    "segment_lists": "SELECT * FROM segment_listed WHERE lead_id = ANY($1) ORDER BY lead_id, segment_id",
    "stage_decisions": "SELECT * FROM stage_decisions WHERE lead_id = ANY($1) ORDER BY since, decision_id",
    "stage_changes": "SELECT * FROM stage_changes WHERE person_id = ANY($1) ORDER BY person_id, revision",
}
"""All that is held about ids."""
