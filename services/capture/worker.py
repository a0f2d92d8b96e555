"""What comes round in capture."""

from datetime import timedelta

from services.capture.hooks.fetching import SecondCalls
from services.capture.hooks.queries import drop_old_deliveries, drop_signed
from shared.service import Runtime, Timer

SEALED_FOR = timedelta(days=14)
KNOWN_FOR = timedelta(days=90)


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """The table of duties."""

    async def drop_old() -> timedelta | None:
        now = runtime.clock.now()
        async with runtime.database.reading() as connection:
            await drop_old_deliveries(connection, now - SEALED_FOR, now - KNOWN_FOR)
            await drop_signed(connection, now - SEALED_FOR)
        return None

    return (
        Timer("old-deliveries", drop_old, timedelta(hours=1)),
        Timer("second-calls", SecondCalls(runtime).run, timedelta(seconds=1)),
    )
