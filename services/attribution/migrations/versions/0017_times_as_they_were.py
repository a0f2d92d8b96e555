"""How long something took, in microseconds: in begun seconds each mean was half a second too long.

What was counted so far stays rounded until something is told of the person again, or the projection is rebuilt.
"""

from alembic import op

from shared.db import run_sql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# A new installation has all this already, from the projection as it stands.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;
DO $$ BEGIN
    IF EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'mark_sums'::regclass AND attname = 'seconds' AND NOT attisdropped
    ) THEN
        ALTER TABLE marks ALTER COLUMN lapse TYPE bigint USING lapse * 1000000;
        ALTER TABLE mark_sums RENAME COLUMN seconds TO microseconds;
        ALTER TABLE mark_sums ALTER COLUMN microseconds TYPE numeric USING microseconds::numeric * 1000000;
    END IF;
END $$;
SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Change the columns."""
    run_sql(op, PROJECTION)
