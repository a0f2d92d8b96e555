"""What happens when a cost arrives."""

from collections.abc import Sequence

from services.attribution.costs import queries
from shared.db import Tx
from shared.events import CostRecorded


async def on_costs(events: Sequence[CostRecorded], tx: Tx) -> None:
    """Store what channels and campaigns cost on a day."""
    newest: dict[tuple[str, ...], CostRecorded] = {}
    for event in sorted(events, key=lambda event: (_name(event), event.position, event.received_at)):
        newest[_name(event)] = event
    await queries.put_costs(tx.connection, list(newest.values()))


def _name(event: CostRecorded) -> tuple[str, ...]:
    return str(event.date), event.channel, event.campaign or queries.NO_CAMPAIGN, event.currency, event.origin
