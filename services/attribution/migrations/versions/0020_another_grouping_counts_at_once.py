"""Once all touches are in the channels of another grouping, no answer from before is given any more."""

from alembic import op

from shared.db import run_sql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

FIRM = """
CREATE TRIGGER moved AFTER UPDATE OF finished_at ON regroupings
FOR EACH ROW WHEN (new.finished_at IS NOT NULL) EXECUTE FUNCTION count_move('firm');
"""


def upgrade() -> None:
    """Let its end count."""
    run_sql(op, FIRM)
