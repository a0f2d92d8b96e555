"""The statements about what nurture holds of a person."""

COUNTS = """
SELECT (SELECT count(*) FROM profiles WHERE lead_id = $1) AS profiles,
       (SELECT (SELECT count(*) FROM consents WHERE lead_id = $1)
            + (SELECT count(*) FROM purpose_consents WHERE lead_id = $1)) AS consents,
       (SELECT count(*) FROM pending_triggers WHERE lead_id = $1) AS waiting_facts,
       (SELECT count(*) FROM optins WHERE lead_id = $1) AS optins,
       (SELECT count(*) FROM contact_preferences WHERE lead_id = $1) AS preferences,
       (SELECT count(*) FROM broadcast_members WHERE lead_id = $1) AS broadcast_lists,
       (SELECT count(*) FROM messages WHERE lead_id = $1
            AND (sealed IS NOT NULL OR subject IS NOT NULL OR links <> '{}')) AS message_texts,
       (SELECT (SELECT count(*) FROM takeover_touches WHERE lead_id = $1)
            + (SELECT count(*) FROM lead_accounts WHERE lead_id = $1)
            + (SELECT count(*) FROM consent_words WHERE lead_id = $1)
            + (SELECT count(*) FROM stage_words WHERE lead_id = $1)) AS facts_about,
       (SELECT count(*) FROM pauses WHERE lead_id = $1 AND num_nonnulls(reason, sealed) > 0) AS pause_reasons,
       (SELECT count(*) FROM messages WHERE lead_id = $1) AS messages,
       (SELECT count(*) FROM enrolments WHERE lead_id = $1) AS enrolments,
       (SELECT count(*) FROM acts WHERE lead_id = $1) AS acts,
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
    "experiments": "SELECT * FROM trials WHERE lead_id = ANY($1) ORDER BY assigned_at, experiment_id",
    "acts": "SELECT * FROM acts WHERE lead_id = ANY($1) OR person_id = ANY($1) ORDER BY at, act_id",
    "replies": "SELECT * FROM replies WHERE lead_id = ANY($1) ORDER BY occurred_at, touch_id",
    "broadcast_lists": "SELECT * FROM broadcast_members WHERE lead_id = ANY($1) ORDER BY broadcast_id, lead_id",
    "audiences": """
        SELECT audience_id, name, lead_id, wanted AS listed_as, may_have AS may_be_listed_as
        FROM audience_members JOIN audiences USING (audience_id) WHERE lead_id = ANY($1) ORDER BY audience_id, lead_id
    """,
    "waiting_facts": "SELECT * FROM pending_triggers WHERE lead_id = ANY($1) ORDER BY occurred_at, event_id",
    "milestones": "SELECT * FROM milestones WHERE lead_id = ANY($1) ORDER BY occurred_at, fact_id",
    "consent_words": "SELECT * FROM consent_words WHERE lead_id = ANY($1) ORDER BY at, event_id",
    "stages": "SELECT * FROM stage_words WHERE lead_id = ANY($1) ORDER BY at, revision",
    "replies_meetings_contacts": """
        SELECT origin, touch_id, type, lead_id, at, meeting_at, automated FROM takeover_touches
        WHERE lead_id = ANY($1) ORDER BY at, touch_id
    """,
    "pauses": "SELECT * FROM pauses WHERE lead_id = ANY($1) ORDER BY since, pause_id",
    "pauses_ended": "SELECT * FROM pause_releases WHERE lead_id = ANY($1) ORDER BY at, pause_id",
    "accounts": "SELECT lead_id, account_id FROM lead_accounts WHERE lead_id = ANY($1) ORDER BY lead_id",
    "turns": """
        SELECT steps_taken.* FROM steps_taken JOIN enrolments USING (enrolment_id)
        WHERE lead_id = ANY($1) ORDER BY enrolment_id, number
    """,
    "segments": "SELECT * FROM segments WHERE lead_id = ANY($1) ORDER BY lead_id, segment_id",
    "preferences": "SELECT * FROM contact_preferences WHERE lead_id = ANY($1)",
    "suppressions": """
        SELECT suppression_id, lead_id, channel, reason, since, origin FROM suppressions
        WHERE lead_id = ANY($1)
    """,
}
"""All that is held about ids."""
