"""Facts that others replaced, and who was whom when."""

from alembic import op

from shared.db import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
SELECT 1;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
