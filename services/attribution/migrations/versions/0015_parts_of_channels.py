"""What each channel took part in, out of the sums of sets of channels.

A channel that took part assisted or closed, so that there is a sum with its number already.
"""

from alembic import op

from shared.db import run_sql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

FILL = """
INSERT INTO path_sums
SELECT 'part', level, day, currency, conversion_type, named.key_id, ARRAY[channel], sum(journeys)::bigint,
    sum(value_minor)::bigint
FROM path_sums CROSS JOIN unnest(keys) AS channel JOIN (
    SELECT DISTINCT keys[1] AS channel, key_id FROM path_sums WHERE subject IN ('assist', 'last') AND currency <> ''
) AS named USING (channel)
WHERE subject = 'set' AND currency <> '' GROUP BY level, day, currency, conversion_type, named.key_id, channel
ON CONFLICT DO NOTHING;
"""


def upgrade() -> None:
    """Fill them."""
    run_sql(op, f"SET LOCAL search_path TO attribution_projection;{FILL}SET LOCAL search_path TO attribution;")
