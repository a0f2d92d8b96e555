"""The first tables of attribution: the runtime's, the projection, and what is not refolded."""

import json

import psycopg
from alembic import op

from services.attribution.models.custom import DEFAULT_MODELS, STORE
from shared.db import run_sql, schema_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OWNED = """
-- Ids whose touches may change a credit: each that ever belonged to a person with a conversion, and perhaps some more.
-- Only a hint that spares the others the look, so it never shrinks and is not part of the projection.
CREATE TABLE converting_leads (
    lead_id text PRIMARY KEY
);

-- How far the conversions of the serving projection are credited by the active version of a custom model; `after` is
-- the last one done.
CREATE TABLE model_backfills (
    model text PRIMARY KEY,
    version integer NOT NULL,
    projection smallint NOT NULL,
    after text NOT NULL DEFAULT '',
    credited bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
"""


MODEL = """
INSERT INTO rule_documents (kind, name, version, document, author) VALUES (%s, %s, 1, %s, 'throughline')
"""
ACTIVATE = "INSERT INTO rule_activations (kind, name, version, author) VALUES (%s, %s, 1, 'throughline')"


def upgrade() -> None:
    """Make everything, and install the custom models that come with the product."""
    run_sql(op, schema_sql("attribution") + OWNED)
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    for name, document in DEFAULT_MODELS.items():
        connection.execute(MODEL, [STORE.kind, name, json.dumps(document)])
        connection.execute(ACTIVATE, [STORE.kind, name])
