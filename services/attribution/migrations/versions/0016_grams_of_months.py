"""Steps with up to four channels before, by month, out of whole sequences; their numbers are those over all time."""

from alembic import op

from shared.db import run_sql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

FILL = """
INSERT INTO path_sums
SELECT part.subject, 'month', part.day, part.currency, part.conversion_type, named.key_id, part.keys,
    sum(part.journeys)::bigint, sum(part.value_minor)::bigint
FROM (
    SELECT went.*, step.* FROM (
        SELECT day, currency, conversion_type, keys AS channels, journeys, value_minor
        FROM path_sums WHERE subject = 'route' AND level = 'month'
        UNION ALL
        SELECT date_trunc('month', last_at AT TIME ZONE 'UTC')::date, '', '', channels, count(*), 0
        FROM remainders GROUP BY 1, channels
    ) AS went CROSS JOIN LATERAL (
        SELECT 'gram' AS subject, channels[greatest(1, place - 4):place] AS keys
        FROM generate_subscripts(channels, 1) AS place
        UNION ALL SELECT 'tail', channels[greatest(1, cardinality(channels) - 3):] WHERE channels <> '{}'
    ) AS step
) AS part JOIN (
    SELECT DISTINCT subject, keys, key_id FROM path_sums WHERE subject IN ('gram', 'tail') AND level = 'all'
) AS named USING (subject, keys)
GROUP BY part.subject, part.day, part.currency, part.conversion_type, named.key_id, part.keys
ON CONFLICT DO NOTHING;
"""


def upgrade() -> None:
    """Fill them."""
    run_sql(op, f"SET LOCAL search_path TO attribution_projection;{FILL}SET LOCAL search_path TO attribution;")
