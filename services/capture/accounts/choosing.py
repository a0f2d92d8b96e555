"""The account of a lead chosen by hand: it stays, whatever matches later."""

from services.capture.accounts import standings
from services.capture.accounts.handlers import kept
from services.capture.leads.merging import locked_person, tell_profile
from services.capture.leads.telling import Cause
from shared.db import Connection, Tx
from shared.ids import AccountId, LeadId
from shared.service import Runtime


async def choose_account(  # noqa: PLR0913  # a lead, an account, and who says so
    lead_id: LeadId, account_id: AccountId | None, actor: str, cause: Cause, tx: Tx, runtime: Runtime
) -> LeadId:
    """Let a lead belong to an account, or to none, from now on. Answers the lead that stands for the person.

    What is chosen is kept with the lead that is named, so that an unmerge gives it back to that one.
    """
    account_id = account_id and await kept(account_id, tx.connection)
    family = await locked_person(lead_id, tx.connection, runtime.keys)
    root = family.root.lead_id
    of_lead = lead_id if lead_id in family.members else root
    _, choices = await standings.read(tx.connection, [root])
    if root not in choices or choices[root] != account_id:
        await standings.choose(tx.connection, of_lead, account_id, actor, cause.received_at)
        await tell_profile(root, cause, tx, runtime)
    return root


async def match_account(lead_id: LeadId, cause: Cause, tx: Tx, runtime: Runtime) -> LeadId:
    """Let matching say again which account a lead belongs to: what was chosen by hand is forgotten."""
    family = await locked_person(lead_id, tx.connection, runtime.keys)
    if await standings.choose_no_more(tx.connection, sorted(family.members)):
        await tell_profile(family.root.lead_id, cause, tx, runtime)
    return family.root.lead_id


async def leads_of_account(account_id: AccountId, after: str, limit: int, connection: Connection) -> list[LeadId]:
    """The leads of an account, also by the id of one merged into it, after one in the order of their ids."""
    return await standings.leads_of(connection, await kept(account_id, connection), after, limit)
