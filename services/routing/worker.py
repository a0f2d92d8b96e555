"""What routing does when time has passed."""

from datetime import datetime, timedelta

from services.routing.assignments import handlers, inputs
from services.routing.deals import sealing as deal_texts
from services.routing.parts import make_parts
from shared.service import Runtime, Timer

EVERY = timedelta(seconds=1)


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Deadlines, and leads that wait for a rep."""
    parts = make_parts(runtime)

    async def deadlines() -> timedelta | None:
        if not await _knows_its_decisions(runtime):
            return None
        return _until(await handlers.expire_overdue(parts), runtime)

    async def holds() -> timedelta | None:
        if not await _knows_its_decisions(runtime):
            return None
        return _until(await handlers.retry_holds(parts), runtime)

    async def seal() -> None:
        await deal_texts.seal_clear(runtime)
        await inputs.seal_clear(runtime)

    return (
        Timer("deadlines", deadlines, EVERY),
        Timer("holds", holds, EVERY),
        Timer("sealing", seal, timedelta(minutes=1)),
    )


async def _knows_its_decisions(runtime: Runtime) -> bool:
    """Whether what was published lately has been read back.

    A database restored to an earlier copy has not: there, an offer that was accepted long ago looks overdue. And with
    Kafka away nobody would hear of a decision.
    """
    async with runtime.database.reading() as connection:
        return await runtime.feeds.fresh(connection, "assignments", runtime.settings.fresh_within)


def _until(due: datetime | None, runtime: Runtime) -> timedelta | None:
    return None if due is None else max(due - runtime.clock.now(), timedelta(0))
