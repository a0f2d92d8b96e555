"""Due steps by turns of their sequences, steps that are late, and unknown messages that become known."""

from alembic import op

from shared.db import run_sql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TURNS = """
SET LOCAL lock_timeout = '5s';
-- When a step was meant to be carried out, whatever held it up since.
ALTER TABLE enrolments ADD COLUMN meant_for timestamptz;
CREATE INDEX enrolments_turns ON enrolments (sequence_id, due_at) WHERE active;
DROP INDEX enrolments_due;

-- What a provider has reported, kept until the call is over; and when the provider is asked, or tried, again.
ALTER TABLE messages ADD COLUMN reported text, ADD COLUMN look_ups integer NOT NULL DEFAULT 0,
    ADD COLUMN look_up_at timestamptz, ADD COLUMN resend_at timestamptz;
UPDATE messages SET look_up_at = clock_timestamp() WHERE state = 'unknown';
CREATE INDEX messages_listed ON messages (created_at, message_id);
CREATE INDEX messages_wanting_a_look ON messages (state, created_at, message_id)
    WHERE state IN ('unknown', 'failed', 'bounced');
CREATE INDEX messages_look_up ON messages (look_up_at) WHERE state = 'unknown';
CREATE INDEX messages_resend ON messages (resend_at) WHERE resend_at IS NOT NULL;

-- What people decided about messages of which nobody knew whether they had left.
CREATE TABLE message_resolutions (
    resolution_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    decision text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX message_resolutions_message ON message_resolutions (message_id);
"""


def upgrade() -> None:
    """Add what is missing. The index that claims go by is made before the one it replaces is dropped."""
    run_sql(op, TURNS)
