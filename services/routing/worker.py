"""What routing does when time has passed."""

from datetime import datetime, timedelta

from services.routing.assignments import handlers, queries
from services.routing.parts import Parts, make_parts
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Deadlines, and leads that wait for a rep."""
    parts = make_parts(runtime)
    rules = _RulesWatch(parts)

    async def deadlines() -> timedelta | None:
        return _until(await handlers.expire_overdue(parts), runtime)

    async def holds() -> timedelta | None:
        await rules.look()
        return _until(await handlers.retry_holds(parts), runtime)

    return (
        Timer("deadlines", deadlines, timedelta(seconds=1)),
        Timer("holds", holds, timedelta(seconds=1)),
    )


class _RulesWatch:
    """Notices that other rules became active, perhaps at a time set long ago: all waiting leads are tried again."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._seen: int | None = None

    async def look(self) -> None:
        """Compare with the last look."""
        async with self._parts.runtime.database.reading() as connection:
            version = await self._parts.rules.store.active_version(connection)
        if version != self._seen:
            async with self._parts.runtime.database.transaction() as tx:
                await queries.lock_dispatcher(tx.connection)
                await queries.retry_all_holds(tx.connection, self._parts.runtime.clock.now())
        self._seen = version


def _until(due: datetime | None, runtime: Runtime) -> timedelta | None:
    return None if due is None else max(due - runtime.clock.now(), timedelta(0))
