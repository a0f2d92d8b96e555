"""The companies of leads: folded from what capture tells, and a lead's with those above it."""

from collections.abc import Sequence

from services.routing.people import queries
from services.routing.people.domain import Company
from shared.db import Tx
from shared.events import AccountChanged, AccountPersonal
from shared.ids import LeadId
from shared.personal import PersonKeys


async def on_accounts_changed(events: Sequence[AccountChanged], tx: Tx, *, keys: PersonKeys) -> None:
    """Keep accounts, opened: of each the newest."""
    newest = {event.account_id: event for event in sorted(events, key=lambda event: event.revision)}
    blocks = [(LeadId(event.account_id), event.personal) for event in newest.values()]
    opened = await keys.open_many(tx.connection, blocks)
    companies = [
        _company(event, AccountPersonal.model_validate_json(block) if block else AccountPersonal())
        for event, block in zip(newest.values(), opened, strict=True)
    ]
    await queries.fold_accounts(tx.connection, companies)


def _company(event: AccountChanged, personal: AccountPersonal) -> Company:
    return Company(
        account_id=event.account_id,
        revision=event.revision,
        parent_id=event.parent_id,
        merged_into=event.merged_into,
        name=personal.name or None,
        domain=personal.domains[0] if personal.domains else None,
        owner_id=personal.owner_id,
        industry=event.industry,
        employees=event.employees,
        annual_revenue=event.annual_revenue,
        country=event.country,
    )
