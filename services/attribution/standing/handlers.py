"""What is counted of moves is kept short."""

from services.attribution.standing import queries
from shared.db import Database


async def bring_together(database: Database) -> None:
    """Make one row of those that transactions left."""
    async with database.transaction() as tx:
        await queries.bring_together(tx.connection)
