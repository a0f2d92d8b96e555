"""Of an assignment that is told anew after a merge the id it was made with is kept, whichever telling comes first."""

from alembic import op

from shared.db import run_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A new installation has this from projection.sql already.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE scoring_projection.assignments ADD COLUMN IF NOT EXISTS id_from bigint NOT NULL DEFAULT 0;
"""


def upgrade() -> None:
    """Add the revision that the id is from."""
    run_sql(op, PROJECTION)
