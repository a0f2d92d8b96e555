"""The messages of a period are read with whom they went to, from an index alone."""

from alembic import op

from shared.db import run_sql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Counts, which read the index that goes, are kept since 0017.
INDEX = """
SET LOCAL lock_timeout = '5s';
CREATE INDEX messages_gone ON nurture.messages (sequence_id, claimed_at) INCLUDE (lead_id, step_id, variant)
    WHERE claimed_at IS NOT NULL AND state NOT IN ('planned', 'failed', 'suppressed');
DROP INDEX nurture.messages_sent;
"""


def upgrade() -> None:
    """Index what is read."""
    run_sql(op, INDEX)
