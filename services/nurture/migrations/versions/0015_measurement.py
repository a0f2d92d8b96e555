"""Who was given which variant, what was ruled about it, who is held out; and what messages came to."""

from alembic import op

from shared.db import run_sql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# A new installation has the projection's tables already.
TABLES = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE nurture.enrolments ADD COLUMN held_out boolean NOT NULL DEFAULT false;
CREATE INDEX enrolments_held_out ON nurture.enrolments (sequence_id) WHERE held_out;
CREATE INDEX enrolments_of_sequence ON nurture.enrolments (sequence_id, triggered_at);
ALTER TABLE nurture.messages ADD COLUMN variant text;
CREATE INDEX messages_sent ON nurture.messages (sequence_id, claimed_at) INCLUDE (step_id, variant, state)
    WHERE claimed_at IS NOT NULL;
CREATE INDEX messages_not_sent ON nurture.messages (sequence_id, settled_at) WHERE state IN ('failed', 'suppressed');
CREATE INDEX messages_of_run ON nurture.messages (enrolment_id);

-- The people of an experiment: of each what they were given first. Without the design they are not comparable.
CREATE TABLE nurture.trials (
    sequence_id text NOT NULL,
    experiment_id text NOT NULL,
    lead_id text NOT NULL,
    design text NOT NULL,
    variant text NOT NULL,
    enrolment_id text NOT NULL,
    assigned_at timestamptz NOT NULL,
    PRIMARY KEY (sequence_id, experiment_id, lead_id)
);
CREATE INDEX trials_run ON nurture.trials (enrolment_id);
CREATE INDEX trials_lead ON nurture.trials (lead_id);

-- What was decided about experiments, by hand or since it was beyond doubt.
CREATE TABLE nurture.experiment_rulings (
    ruling_id text PRIMARY KEY,
    sequence_id text NOT NULL,
    experiment_id text NOT NULL,
    design text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('winner', 'stopped')),
    variant text NOT NULL,
    reason text NOT NULL,
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL
);
CREATE INDEX experiment_rulings_of ON nurture.experiment_rulings (sequence_id, experiment_id, design, decided_at);

CREATE INDEX IF NOT EXISTS milestones_conversions ON nurture_projection.milestones (occurred_at)
    WHERE kind = 'conversion_recorded';
CREATE TABLE IF NOT EXISTS nurture_projection.refunds (
    origin text NOT NULL,
    refund_id text NOT NULL,
    conversion_id text NOT NULL,
    position bigint NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    PRIMARY KEY (conversion_id, origin, refund_id)
);
CREATE TABLE IF NOT EXISTS nurture_projection.replies (
    origin text NOT NULL,
    touch_id text NOT NULL,
    lead_id text NOT NULL,
    position bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    automated boolean NOT NULL,
    PRIMARY KEY (origin, touch_id)
);
CREATE INDEX IF NOT EXISTS replies_time ON nurture_projection.replies (occurred_at);
CREATE TABLE IF NOT EXISTS nurture_projection.withdrawals (
    origin text NOT NULL,
    touch_id text NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (origin, touch_id)
);
CREATE TABLE IF NOT EXISTS nurture_projection.earnings (
    conversion_id text NOT NULL,
    model text NOT NULL,
    revision bigint NOT NULL,
    converted_at timestamptz NOT NULL,
    currency text NOT NULL,
    touch_ids text[] NOT NULL,
    value_minor bigint[] NOT NULL,
    PRIMARY KEY (conversion_id, model)
);
CREATE INDEX IF NOT EXISTS earnings_time ON nurture_projection.earnings (converted_at) WHERE touch_ids <> '{}';
"""


def upgrade() -> None:
    """Make the tables; of what was sent before, conversions count as well, replies and refunds told from now on do."""
    run_sql(op, TABLES)
