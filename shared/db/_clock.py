"""The time that all processes agree on."""

from datetime import datetime

from shared.clock import Clock, SystemClock
from shared.db._database import NOW, Connection, Database, Tx, one


async def agreed_now(connection: Connection, clock: Clock) -> datetime:
    """The database's time: the clock of a machine may be set wrong, or step.

    A clock that was put in place of the machine's is believed.
    """
    if not isinstance(clock, SystemClock):
        return clock.now()
    now: datetime = (await one(connection, NOW))["now"]
    return now


async def agreed_apart(database: Database, clock: Clock) -> datetime:
    """The same, by a connection of its own. Raises Unavailable."""
    async with database.reading() as connection:
        return await agreed_now(connection, clock)


async def agreed_in(tx: Tx, clock: Clock) -> datetime:
    """The same, asked once a transaction: all that it judges is judged at one moment."""
    if "present" not in tx.memory:
        tx.memory["present"] = {"now": await agreed_now(tx.connection, clock)}
    now: datetime = tx.memory["present"]["now"]
    return now
