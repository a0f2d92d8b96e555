"""What happens when a lead is given to a rep."""

from collections.abc import Sequence

from services.attribution.credits.crediting import recredit
from services.attribution.journeys.queries import converting_among, lock_leads
from services.attribution.models.catalogue import Catalogue
from services.attribution.pipeline import queries
from shared.db import Tx
from shared.events import LeadAssigned


async def on_assignments(events: Sequence[LeadAssigned], tx: Tx, catalogue: Catalogue) -> None:
    """Store who was given which lead; conversions count under the rep who had the lead by then."""
    newest = {
        event.assignment_id: event for event in sorted(events, key=lambda event: (event.assignment_id, event.revision))
    }
    await lock_leads(tx.connection, {event.lead_id for event in events})
    changed = await queries.put_assignments(tx.connection, list(newest.values()))
    if converting := await converting_among(tx.connection, changed):
        await recredit(tx.connection, catalogue, [(lead_id, None) for lead_id in converting])
