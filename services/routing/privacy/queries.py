"""The statements about what routing holds of a person."""

COUNTS = """
SELECT (SELECT count(*) FROM profiles WHERE lead_id = $1 AND fields <> '{}') AS profiles,
       (SELECT count(*) FROM consents WHERE lead_id = $1) AS consents,
       (SELECT count(*) FROM assignments WHERE lead_id = $1 AND inputs IS NOT NULL) AS assignment_inputs,
       (SELECT count(*) FROM holds WHERE lead_id = $1) AS holds,
       (SELECT count(*) FROM deals WHERE lead_id = $1 AND (name <> '' OR sealed IS NOT NULL)) AS deal_texts,
       (SELECT count(*) FROM deals
        WHERE stakeholders <> '[]' AND stakeholders @> jsonb_build_array(jsonb_build_object('lead_id', $1::text))
       ) AS stakeholder_roles,
       (SELECT count(*) FROM handoffs WHERE lead_id = $1) AS handoffs,
       (SELECT count(*) FROM assignments WHERE lead_id = $1) AS assignments,
       (SELECT count(*) FROM deals WHERE lead_id = $1) AS deals
"""
HELD = {
    "profiles": "SELECT * FROM profiles WHERE lead_id = ANY($1)",
    "consents": "SELECT * FROM consents WHERE lead_id = ANY($1)",
    "assignments": """
        SELECT * FROM assignments
        WHERE lead_id = ANY($1) OR person_id = ANY($1) ORDER BY assigned_at, assignment_id
    """,
    "waiting": "SELECT * FROM holds WHERE lead_id = ANY($1) OR person_id = ANY($1)",
    "segments": "SELECT * FROM segments WHERE lead_id = ANY($1) ORDER BY lead_id, segment_id",
    "notifications": """
        SELECT kind, step, rep_id, channel, state, created_at FROM notifications WHERE lead_id = ANY($1) ORDER BY place
    """,
    "deals": "SELECT * FROM deals WHERE lead_id = ANY($1) ORDER BY opened_at, deal_id",
    "deal_history": """
        SELECT deal_history.* FROM deal_history JOIN deals USING (deal_id)
        WHERE lead_id = ANY($1) ORDER BY at
    """,
    "parts_in_deals": """
        SELECT deal_id, one->>'lead_id' AS lead_id, one->>'role' AS role
        FROM deals, jsonb_array_elements(stakeholders) AS one
        WHERE stakeholders <> '[]' AND one->>'lead_id' = ANY($1) ORDER BY deal_id
    """,
    "handoffs": "SELECT * FROM handoffs WHERE lead_id = ANY($1) ORDER BY opened_at, deal_id",
}
"""All that is held about ids."""
