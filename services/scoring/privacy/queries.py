"""The statements about what scoring holds of a person."""

COUNTS = """
SELECT (SELECT count(*) FROM profiles WHERE lead_id = $1 AND NOT erased) AS profiles,
       (SELECT count(*) FROM touches WHERE lead_id = $1 AND personal IS NOT NULL) AS touch_details,
       (SELECT count(*) FROM consents WHERE lead_id = $1) AS consents,
       (SELECT count(*) FROM touches WHERE lead_id = $1) AS touches,
       (SELECT count(*) FROM scores WHERE person_id = $1) AS scores,
       (SELECT count(*) FROM stage_changes WHERE person_id = $1) AS stage_changes
"""
HELD = {
    "profiles": "SELECT * FROM profiles WHERE lead_id = ANY($1)",
    "consents": "SELECT * FROM consents WHERE lead_id = ANY($1)",
    "touches": "SELECT * FROM touches WHERE lead_id = ANY($1) ORDER BY occurred_at, touch_id",
    "scores": "SELECT * FROM scores WHERE person_id = ANY($1)",
    "stages": "SELECT * FROM standings WHERE person_id = ANY($1)",
    "stage_changes": "SELECT * FROM stage_changes WHERE person_id = ANY($1) ORDER BY person_id, revision",
}
"""All that is held about ids."""
