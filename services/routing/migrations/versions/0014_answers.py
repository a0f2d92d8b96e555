"""What CRMs answered when a lead was to be erased there; decisions in order, so that old ones are found."""

from alembic import op

from shared.db import run_sql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ERASURES = """
SET LOCAL lock_timeout = '5s';

ALTER TABLE crm_records ADD COLUMN erased_at timestamptz, ADD COLUMN erasure text;

ALTER TABLE handoff_tasks ADD COLUMN revision bigint NOT NULL DEFAULT 0;

CREATE INDEX decisions_in_order ON decisions (number);

-- Who left the types as they come is told of these as well.
UPDATE subscriptions SET types = types || '{throughline.lead.erased.v1,throughline.lead.merged.v1}'::text[]
WHERE subscription_id IN (SELECT subscription_id FROM crm_connections) AND NOT types && '{throughline.lead.erased.v1}'
    AND types @> ARRAY['throughline.lead.assigned.v1', 'throughline.assignment.accepted.v1',
        'throughline.stage.changed.v1', 'throughline.deal.changed.v1'];
"""


def upgrade() -> None:
    """Make the columns."""
    run_sql(op, ERASURES)
