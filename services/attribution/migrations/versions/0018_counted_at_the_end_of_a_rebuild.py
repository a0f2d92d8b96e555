"""Whom a rebuild counts at its end, each once."""

from alembic import op

from shared.db import run_sql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# A new installation has it already, from the projection as it stands.
PROJECTION = """
SET LOCAL search_path TO attribution_projection;
CREATE TABLE IF NOT EXISTS people_owed (lead_id text PRIMARY KEY);
SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Make the table."""
    run_sql(op, PROJECTION)
