"""Times that lie outside of the years that are accepted, of facts from earlier versions, become the nearest that do.

Facts are read so from now on; rows that were made of them before would still stop whoever reckons with them.
"""

from alembic import op

from shared.db import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WITHIN_YEARS = """
DO $$
DECLARE
    place record;
BEGIN
    FOR place IN
        SELECT columns.table_name, columns.column_name
        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'scoring_projection' AND table_type = 'BASE TABLE'
            AND data_type = 'timestamp with time zone' AND table_name IN (
                'assignments', 'consents', 'identity_links', 'past_profiles', 'profiles', 'scores', 'touches'
            )
    LOOP
        EXECUTE format(
            'UPDATE scoring_projection.%1$I SET %2$I = least(greatest(%2$I, %3$L), %4$L) '
            'WHERE %2$I < %3$L OR %2$I > %4$L',
            place.table_name, place.column_name, '1900-01-01T00:00:00Z', '2999-12-31T00:00:00Z'
        );
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Bring times of the projection into these years."""
    run_sql(op, WITHIN_YEARS)
