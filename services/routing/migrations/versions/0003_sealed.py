"""What is known of people, sealed."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A new installation has the column of the projection from projection.sql already.
TABLES = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE routing_projection.profiles ADD COLUMN IF NOT EXISTS personal text;

-- What is personal of what the rules saw, with the key of `sealed_for`.
ALTER TABLE assignments ADD COLUMN sealed text;
ALTER TABLE assignments ADD COLUMN sealed_for text;

-- What is written about a deal, with the key of its lead; `name` is empty then.
ALTER TABLE deals ADD COLUMN sealed text;

CREATE INDEX deals_in_clear ON deals (deal_id) WHERE name <> '';
CREATE INDEX assignments_in_clear ON assignments (assignment_id) WHERE inputs->'lead' ?|
    ARRAY['attributes', 'email', 'external_ids', 'first_name', 'last_name', 'phone', 'title'];
"""


def upgrade() -> None:
    """Add the columns; the worker seals what stands there in clear, a rebuild the profiles."""
    run_sql(op, TABLES)
