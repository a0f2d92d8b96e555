"""The sequence that greets new customers."""

import json

import psycopg
from alembic import op

from services.nurture.sequences.catalogue import shipped

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Where people are written to already, somebody has to want it first: there it is installed and not active.
ONBOARDING = """
INSERT INTO rule_documents (kind, name, version, document, author)
SELECT 'sequence', 'onboarding', 1,
    (%s::jsonb || jsonb_build_object('active', NOT EXISTS (SELECT FROM enrolments)))::json, 'throughline'
WHERE NOT EXISTS (SELECT FROM rule_documents WHERE kind = 'sequence' AND name = 'onboarding')
RETURNING version
"""
ACTIVATE = """
INSERT INTO rule_activations (kind, name, version, author) VALUES ('sequence', 'onboarding', 1, 'throughline')
"""


def upgrade() -> None:
    """Install it, unless there is a sequence of this name."""
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    if connection.execute(ONBOARDING, [json.dumps(shipped("onboarding"))]).fetchone() is not None:
        connection.execute(ACTIVATE)
