"""What a response to a message was, and how it is known that a machine gave it."""

from alembic import op

from shared.db import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Of responses that are older than this nobody knows what they were: they stay as they were told.
RESPONSES = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE responses ADD COLUMN kind text, ADD COLUMN number integer, ADD COLUMN seen_at timestamptz,
    ADD COLUMN automated_reason text;
CREATE INDEX responses_message ON responses (message_id) WHERE kind IS NOT NULL;
"""


def upgrade() -> None:
    """Add the columns."""
    run_sql(op, RESPONSES)
