"""Access tokens can be taken back before they expire."""

from alembic import op

from shared.db import package_sql, run_sql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of what was revoked."""
    run_sql(op, package_sql("shared.web", "revocations.sql"))
