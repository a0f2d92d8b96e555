"""The statements about what nurture holds of a person."""

COUNTS = """
SELECT (SELECT count(*) FROM profiles WHERE lead_id = $1) AS profiles,
       (SELECT (SELECT count(*) FROM consents WHERE lead_id = $1)
            + (SELECT count(*) FROM purpose_consents WHERE lead_id = $1)) AS consents,
       (SELECT count(*) FROM pending_triggers WHERE lead_id = $1) AS waiting_facts,
       (SELECT count(*) FROM optins WHERE lead_id = $1) AS optins,
       (SELECT count(*) FROM messages WHERE lead_id = $1
            AND (sealed IS NOT NULL OR subject IS NOT NULL OR links <> '{}')) AS message_texts,
       (SELECT count(*) FROM messages WHERE lead_id = $1) AS messages,
       (SELECT count(*) FROM enrolments WHERE lead_id = $1) AS enrolments,
       (SELECT count(*) FROM suppressions WHERE lead_id = $1) AS suppressions
"""
HELD = {
    "profiles": "SELECT * FROM profiles WHERE lead_id = ANY($1)",
    "consents": """
        SELECT lead_id, channel, 'marketing' AS purpose, state, at FROM consents
        WHERE lead_id = ANY($1)
    """,
    "consents_by_purpose": "SELECT * FROM purpose_consents WHERE lead_id = ANY($1)",
    "enrolments": "SELECT * FROM enrolments WHERE lead_id = ANY($1) ORDER BY started_at, enrolment_id",
    "messages": """
        SELECT * FROM messages
        WHERE lead_id = ANY($1) OR person_id = ANY($1) ORDER BY created_at, message_id
    """,
    "optins": """
        SELECT optin_id, lead_id, form_name, language, requested_at, expires_at FROM optins
        WHERE lead_id = ANY($1) ORDER BY requested_at, optin_id
    """,
    "waiting_facts": "SELECT * FROM pending_triggers WHERE lead_id = ANY($1) ORDER BY occurred_at, event_id",
    "milestones": "SELECT * FROM milestones WHERE lead_id = ANY($1) ORDER BY occurred_at, fact_id",
    "suppressions": """
        SELECT suppression_id, lead_id, channel, reason, since, origin FROM suppressions
        WHERE lead_id = ANY($1)
    """,
}
"""All that is held about ids."""
