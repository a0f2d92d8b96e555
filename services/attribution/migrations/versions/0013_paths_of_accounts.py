"""The conversions of an account without those of all others."""

from alembic import op

from shared.db import run_sql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEX = """
SET LOCAL lock_timeout = '5s';
CREATE INDEX IF NOT EXISTS paths_account ON attribution_projection.paths (account, occurred_at DESC, conversion_id);
"""


def upgrade() -> None:
    """Make the index."""
    run_sql(op, INDEX)
