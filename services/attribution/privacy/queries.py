"""The statements about what attribution holds of a person."""

COUNTS = """
SELECT (SELECT count(*) FROM touches WHERE lead_id = $1 AND (page IS NOT NULL OR content IS NOT NULL))
           + (SELECT count(*) FROM touch_versions WHERE lead_id = $1 AND (page IS NOT NULL OR content IS NOT NULL))
           AS touch_details,
       (SELECT count(*) FROM touches WHERE lead_id = $1) AS touches,
       (SELECT count(*) FROM conversions WHERE lead_id = $1) AS conversions,
       (SELECT count(*) FROM credits JOIN conversions USING (conversion_id) WHERE lead_id = $1) AS credits,
       (SELECT count(*) FROM stage_changes WHERE lead_id = $1) AS stages,
       (SELECT count(*) FROM assignments WHERE lead_id = $1) AS assignments
"""
HELD = {
    "journey": "SELECT * FROM touches WHERE lead_id = ANY($1) ORDER BY occurred_at, touch_id",
    "conversions": "SELECT * FROM conversions WHERE lead_id = ANY($1) ORDER BY occurred_at, conversion_id",
    "refunds": """
        SELECT refunds.* FROM refunds JOIN conversions USING (conversion_id)
        WHERE lead_id = ANY($1) ORDER BY refunds.occurred_at
    """,
    "credits": """
        SELECT credits.* FROM credits JOIN conversions USING (conversion_id)
        WHERE lead_id = ANY($1) ORDER BY conversion_id, run
    """,
    "paths": """
        SELECT paths.* FROM paths JOIN conversions USING (conversion_id)
        WHERE lead_id = ANY($1) ORDER BY paths.occurred_at, conversion_id
    """,
    "assignments": "SELECT * FROM assignments WHERE lead_id = ANY($1) ORDER BY assigned_at, assignment_id",
    "replaced_touches": "SELECT * FROM touch_versions WHERE lead_id = ANY($1) ORDER BY occurred_at, touch_id, position",
    "replaced_conversions": """
        SELECT * FROM conversion_versions WHERE lead_id = ANY($1) ORDER BY occurred_at, conversion_id, position
    """,
    "identity": """
        SELECT * FROM identity_log WHERE lead_id = ANY($1) OR into_id = ANY($1) ORDER BY received_at, event_id
    """,
    "stages": "SELECT * FROM stage_changes WHERE lead_id = ANY($1) ORDER BY at, revision",
    "deals": "SELECT * FROM deals WHERE lead_id = ANY($1) ORDER BY opened_at",
    "deal_steps": """
        SELECT deal_steps.* FROM deal_steps JOIN deals USING (deal_id)
        WHERE lead_id = ANY($1) ORDER BY deal_id, deal_steps.revision
    """,
    "counted": "SELECT * FROM marks WHERE person_id = ANY($1) ORDER BY at, kind, ref, step",
    "counted_under": "SELECT * FROM circumstances WHERE person_id = ANY($1)",
}
"""All that is held about ids."""
