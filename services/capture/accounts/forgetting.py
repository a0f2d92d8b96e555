"""Accounts that came from an erased person alone: a domain can be somebody's name."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.capture.accounts import queries, standings
from services.capture.accounts.telling import account_changed
from shared.db import Tx
from shared.ids import LeadId
from shared.service import Runtime


async def forget_accounts(lead_ids: Sequence[LeadId], now: datetime, tx: Tx, runtime: Runtime) -> None:
    """Take leads out of their accounts; an account that nobody but them told of goes with its key.

    Whoever joins such an account at this very moment is matched again afterwards, and makes a new one.
    """
    connection = tx.connection
    account_ids = await queries.accounts_told_by(connection, lead_ids)
    await standings.forget(connection, lead_ids)
    await standings.forget_choices(connection, lead_ids)
    if not account_ids:
        return
    accounts = await queries.accounts_of(connection, account_ids)
    await queries.remove_accounts(connection, account_ids)
    for account in accounts.values():
        await runtime.keys.destroy(tx, LeadId(account.account_id), now)
        tx.emit(account_changed(replace(account, revision=account.revision + 1), now))
    domains = [domain for account in accounts.values() for domain in account.domains]
    await standings.ask_again(connection, [("domain", domain) for domain in sorted(domains)])
