"""What follows from the sequences of channels."""

from alembic import op

from shared.db import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
SELECT 1;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
