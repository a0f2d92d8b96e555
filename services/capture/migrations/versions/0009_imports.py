"""Whose likenesses are due is found by an index, however many wait."""

from alembic import op

from shared.db import run_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INDEX = """
CREATE INDEX likeness_checks_in_turn ON likeness_checks (seen_at, lead_id) WHERE seen_at IS NOT NULL;
"""


def upgrade() -> None:
    """Make the index."""
    run_sql(op, INDEX)
