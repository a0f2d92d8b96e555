"""What was told of a deal is numbered on from all of it, also from what changed nothing."""

from alembic import op

from shared.db import run_sql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count what an import told that changed nothing: what was told next took its number, and was not kept."""
    run_sql(
        op,
        """
        SET LOCAL lock_timeout = '5s';
        UPDATE deals SET revision = told.last
        FROM (SELECT deal_id, max(revision) AS last FROM deal_history GROUP BY deal_id) AS told
        WHERE told.deal_id = deals.deal_id AND told.last > deals.revision;
        """,
    )
