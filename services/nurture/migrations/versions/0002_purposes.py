"""Consent for purposes other than marketing."""

from alembic import op

from shared.db import run_sql

revision = "0002"
down_revision = "0001"

TABLES = """
CREATE TABLE IF NOT EXISTS nurture_projection.purpose_consents (
    lead_id text NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, channel, purpose)
);
"""


def upgrade() -> None:
    """A new installation has it from the projection already."""
    run_sql(op, TABLES)
