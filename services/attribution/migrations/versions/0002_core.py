"""What every version of a model gives, the paths to conversions, and their sums."""

from alembic import op

from shared.db import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
SELECT 1;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
