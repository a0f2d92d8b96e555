"""What happens when accounts become other ones."""

from collections.abc import Sequence

from services.attribution.accounts import queries
from services.attribution.credits.crediting import recredit
from services.attribution.journeys.queries import converting_among
from services.attribution.models.catalogue import Catalogue
from services.attribution.pipeline.following import put_off
from shared.db import Tx
from shared.events import AccountChanged
from shared.ids import AccountId


async def on_accounts_changed(events: Sequence[AccountChanged], tx: Tx, catalogue: Catalogue) -> None:
    """Have what an erased person did count under the account that theirs became.

    Everybody else is told theirs anew, a page at a time, by whoever matches people with accounts.
    """
    connection = tx.connection
    newest: dict[AccountId, AccountChanged] = {}
    for event in sorted(events, key=lambda event: (event.account_id, event.revision)):
        newest[event.account_id] = event
    if any(event.merged_into for event in newest.values()):
        await queries.lock_merges(connection)
    if not (moved := await queries.put_accounts(connection, list(newest.values()))):
        return
    if erased := await queries.erased_of(connection, moved):
        if converting := await converting_among(connection, erased):
            await recredit(connection, catalogue, [(lead_id, None) for lead_id in converting])
        put_off(tx, erased)
