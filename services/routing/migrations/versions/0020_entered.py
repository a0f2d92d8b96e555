"""When a lead came to its stage: what was accepted before it was set aside is over, what was accepted since is not."""

from alembic import op

from shared.db import run_sql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A new installation has the column from projection.sql already; of stages from before it is not known."""
    run_sql(
        op,
        """
        SET LOCAL lock_timeout = '5s';
        ALTER TABLE routing_projection.standings ADD COLUMN IF NOT EXISTS entered_at timestamptz;
        """,
    )
