"""What is known of people, sealed."""

from alembic import op

from shared.db import run_sql

revision = "0004"
down_revision = "0003"

# A new installation has the column of the projection from projection.sql already.
TABLES = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE nurture_projection.profiles ADD COLUMN IF NOT EXISTS personal text;

-- What a message says of its person, `subject` and `links`, with the key of its lead; both are empty then.
ALTER TABLE messages ADD COLUMN sealed text;
CREATE INDEX messages_in_clear ON messages (message_id) WHERE subject IS NOT NULL OR links <> '{}';
"""


def upgrade() -> None:
    """Add the columns; the worker seals what stands there in clear, a rebuild the profiles."""
    run_sql(op, TABLES)
