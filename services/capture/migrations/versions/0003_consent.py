"""Consent by purpose, with its evidence; receipts of erasures and exports."""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
