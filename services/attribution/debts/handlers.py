"""Credits what was too much for the transaction that changed it: piece by piece, each of which stays."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate

from services.attribution.conversions.queries import Placed
from services.attribution.credits.crediting import credit_again
from services.attribution.debts import queries
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.queries import take_time
from shared.db import Database
from shared.faults import failpoint
from shared.service import Runtime

PIECE = 10_000
"""Touches on paths credited in one transaction: whoever waits for the person's locks waits about a second."""

MOST = 500
"""Conversions credited in one transaction, however short their paths."""


async def pay_debts(database: Database, catalogue: Catalogue) -> timedelta | None:
    """Credit the next piece of what is owed; answers no wait when there may be more."""
    async with database.transaction() as tx:
        piece = _piece(await queries.owed(tx.connection, MOST))
        if not piece:
            return None
        await take_time(tx.connection)
        await queries.forgive(tx.connection, await credit_again(tx.connection, catalogue, piece))
        failpoint("debts_before_commit")
    return timedelta(0)


async def settle_debts(runtime: Runtime, catalogue: Catalogue) -> None:
    """Credit at once all that is owed, of the projection at hand."""
    while await pay_debts(runtime.database, catalogue) is not None:
        pass


def _piece(owed: Sequence[tuple[Placed, int]]) -> list[Placed]:
    """As many as come to a transaction's work, one at least."""
    sums = accumulate(touches for _, touches in owed)
    return [one for (one, _), until in zip(owed, sums, strict=True) if until <= PIECE] or [one for one, _ in owed[:1]]
