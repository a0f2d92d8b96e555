"""What happens to the sums when the paths to conversions change."""

from collections.abc import Sequence

from services.attribution.domain import PathRow
from services.attribution.paths.domain import journey_of, moved
from services.attribution.paths.queries import move_sums
from services.attribution.remainders.queries import put_turns
from shared.db import Connection


async def paths_moved(connection: Connection, before: Sequence[PathRow], after: Sequence[PathRow]) -> None:
    """Count paths in place of others. What is left of their persons' journeys is looked at later."""
    await move_sums(connection, moved(map(journey_of, before), map(journey_of, after)))
    await put_turns(connection, {row.person_id for row in (*before, *after)})
