"""The facts that capture tells about accounts."""

from collections.abc import Iterable
from datetime import datetime

import orjson

from services.capture.accounts.domain import Account
from shared.events import AccountChanged
from shared.ids import EventId, LeadId, derived_id
from shared.personal import Draft

_PERSONAL = ("name", "domains", "external_id", "owner_id", "attributes")


def account_drafts(accounts: Iterable[Account], at: datetime) -> list[Draft]:
    """Accounts as they stand."""
    return [
        Draft(
            account_changed(one, at),
            orjson.dumps({name: value for name in _PERSONAL if (value := getattr(one, name))}),
        )
        for one in accounts
    ]


def account_changed(one: Account, at: datetime) -> AccountChanged:
    """An account as it stands, without what is personal."""
    return AccountChanged(
        event_id=EventId(derived_id("account-changed", one.account_id, str(one.revision))),
        lead_id=LeadId(one.account_id),
        occurred_at=at,
        received_at=at,
        revision=one.revision,
        account_id=one.account_id,
        parent_id=one.parent_id,
        industry=one.industry,
        employees=one.employees,
        annual_revenue=one.annual_revenue,
        country=one.country,
        merged_into=one.merged_into,
    )
