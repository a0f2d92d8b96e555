"""What Kafka remembers of accounts: normally all known, needed when an older database came back."""

from collections.abc import Sequence

from services.capture.accounts import queries, standings
from services.capture.accounts.domain import Account
from services.capture.accounts.names import company_key
from shared.db import Tx
from shared.events import AccountChanged, AccountPersonal
from shared.ids import LeadId
from shared.service import Runtime


async def on_accounts_changed(events: Sequence[AccountChanged], tx: Tx, runtime: Runtime) -> None:
    """Bring back accounts of which this database knows nothing, or less; its leads are then matched again."""
    connection = tx.connection
    newest = {event.account_id: event for event in sorted(events, key=lambda event: event.revision)}
    known = await queries.accounts_of(connection, list(newest))
    behind = [
        event for account_id, event in sorted(newest.items())
        if account_id not in known or known[account_id].revision < event.revision
    ]  # fmt: skip
    if not behind:
        return
    opened = await runtime.keys.open_many(connection, [(LeadId(event.account_id), event.personal) for event in behind])
    for event, personal in zip(behind, opened, strict=True):
        if personal is not None:
            account = _restored(event, AccountPersonal.model_validate_json(personal))
            await queries.restore(connection, account, company_key(account.name))
    await standings.ask_again(connection, [("every", "")])


def _restored(event: AccountChanged, personal: AccountPersonal) -> Account:
    return Account(
        account_id=event.account_id,
        revision=event.revision,
        name=personal.name,
        domains=tuple(personal.domains),
        external_id=personal.external_id,
        parent_id=event.parent_id,
        owner_id=personal.owner_id,
        industry=event.industry,
        employees=event.employees,
        annual_revenue=event.annual_revenue,
        country=event.country,
        attributes=personal.attributes,
        merged_into=event.merged_into,
    )
