"""How a turn shared out the level of those present: in equal parts before this, by weight from now on."""

from alembic import op

from shared.db import run_sql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is there, and what a running earlier version writes, shared in equal parts."""
    run_sql(
        op,
        """
        SET LOCAL lock_timeout = '5s';
        ALTER TABLE fairness_entries ADD COLUMN by_weight boolean NOT NULL DEFAULT false;
        """,
    )
