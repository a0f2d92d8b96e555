"""A lead is noted before it is written to a CRM, with what it is found by: the answer may be lost, and it be there."""

from alembic import op

from shared.db import run_sql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A record has an id when the CRM told it; before that it has been begun."""
    run_sql(
        op,
        """
        SET LOCAL lock_timeout = '5s';
        ALTER TABLE crm_records ALTER crm_id DROP NOT NULL, ADD COLUMN sealed_for text, ADD COLUMN sealed text;
        """,
    )
