"""Activations say why, can be called off, and can be rolled back."""

from alembic import op

from shared.db import package_sql, run_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is missing; what was activated before keeps an unknown time of decision and no reason."""
    run_sql(op, package_sql("shared.rules", "activations.sql"))
