"""The sums by campaign, and what is in them already."""

from alembic import op

from shared.db import run_sql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLE = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;

CREATE TABLE IF NOT EXISTS campaign_sums (
    run integer NOT NULL,
    basis text NOT NULL,
    level text NOT NULL,
    day date NOT NULL,
    currency text NOT NULL,
    conversion_type text NOT NULL,
    key_id bigint NOT NULL,
    channel text NOT NULL,
    source text NOT NULL,
    medium text NOT NULL,
    campaign text NOT NULL,
    units bigint NOT NULL,
    value_minor bigint NOT NULL,
    PRIMARY KEY (run, basis, level, day, currency, conversion_type, key_id)
) WITH (fillfactor = 70);
"""

FILL = """
INSERT INTO campaign_sums
SELECT run, basis, level, day, currency, conversion_type, key_id, channel, source, medium, campaign,
    sum(units)::bigint, sum(value_minor)::bigint
FROM credit_sums JOIN combos USING (combo_id) CROSS JOIN LATERAL (
    SELECT ('x' || md5(jsonb_build_array(channel, source, medium, campaign)::text))::bit(64)::bigint AS key_id
) AS named
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 HAVING sum(units) <> 0 OR sum(value_minor) <> 0
ON CONFLICT DO NOTHING;
"""


def upgrade() -> None:
    """Make the table and fill it."""
    run_sql(op, f"{TABLE}{FILL}SET LOCAL search_path TO attribution;")
