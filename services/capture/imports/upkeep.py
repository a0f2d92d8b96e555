"""What of imports is not kept for ever: bad rows, files that were never started, pieces of broken uploads."""

from datetime import timedelta

from services.capture.imports import queries
from shared.service import Runtime

UPLOADS_TAKE_AT_MOST = timedelta(days=1)


async def drop_old_imports(runtime: Runtime) -> None:
    """Forget what is over."""
    before = runtime.clock.now() - timedelta(days=runtime.settings.import_bad_rows_days)
    async with runtime.database.reading() as connection:
        await connection.execute(queries.DROP_UNUSED, before)
        await connection.execute(queries.DROP_OLD_BAD, before)
        await connection.execute(queries.DROP_LOST_PIECES, runtime.clock.now() - UPLOADS_TAKE_AT_MOST)
