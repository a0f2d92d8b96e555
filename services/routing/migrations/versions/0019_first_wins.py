"""A hand-off whose win turns out to have been at another time remembers by which time it was told first."""

from alembic import op

from shared.db import run_sql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing where it is what was told first."""
    run_sql(
        op,
        """
        SET LOCAL lock_timeout = '5s';
        ALTER TABLE handoffs ADD COLUMN first_won_at timestamptz;
        """,
    )
