"""The scores that the scoring document names beside the main one, as services whose rules read them keep them.

Expects a table `lead_scores` in the service's projection. Facts that name no scores say nothing about them: scoring
tells an empty set once when there are none any more.
"""

from collections.abc import Sequence

from shared.db import Connection
from shared.events import LeadScored, StageChanged

FOLD = """
INSERT INTO lead_scores AS known (lead_id, revision, scores)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::jsonb[])
ON CONFLICT (lead_id) DO UPDATE SET revision = excluded.revision, scores = excluded.scores
WHERE known.revision < excluded.revision
"""


async def fold_scores(connection: Connection, events: Sequence[LeadScored | StageChanged]) -> None:
    """Keep each lead's newest scores. Costs nothing while the document names none."""
    told = [event for event in events if event.scores is not None]
    newest = {event.lead_id: event for event in sorted(told, key=lambda event: event.revision)}
    if ordered := [newest[lead_id] for lead_id in sorted(newest)]:
        await connection.execute(
            FOLD,
            [event.lead_id for event in ordered],
            [event.revision for event in ordered],
            [event.scores for event in ordered],
        )
