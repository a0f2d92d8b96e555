"""What follows from paths that changed: called with each change, in the same transaction."""

from collections.abc import Sequence

from services.attribution.domain import PathRow
from shared.db import Connection


async def paths_moved(connection: Connection, before: Sequence[PathRow], after: Sequence[PathRow]) -> None:
    """Paths to conversions are others than before; each conversion is at most once in `before` and once in `after`."""
