"""Accounts as the API shows them."""

from collections.abc import Sequence

from services.capture.accounts import queries
from services.capture.accounts.domain import Naming
from services.capture.accounts.handlers import kept
from services.capture.accounts.inputs import AccountOut, AccountRef, CandidateOut, MatchOut, OneAccountOut
from shared.db import Connection
from shared.ids import AccountId


async def accounts_out(connection: Connection, account_ids: Sequence[AccountId]) -> list[AccountOut]:
    """Accounts in the order asked for: three statements, however many."""
    accounts = await queries.accounts_of(connection, account_ids)
    above = await queries.accounts_above(connection, account_ids)
    times = await queries.times_of(connection, account_ids)
    shown = []
    for account_id in account_ids:
        one = accounts[account_id]
        parents = [AccountRef(account_id=parent, name=name) for parent, name in above[account_id]]
        out = AccountOut(
            account_id=account_id,
            name=one.name,
            domains=list(one.domains),
            external_id=one.external_id,
            parent_id=one.parent_id,
            ultimate_parent_id=parents[-1].account_id if parents else account_id,
            parents=parents,
            owner_id=one.owner_id,
            industry=one.industry,
            employees=one.employees,
            annual_revenue=one.annual_revenue,
            country=one.country,
            attributes=dict(one.attributes),
            made_by=one.made_by,
            revision=one.revision,
            created_at=times[account_id][0],
            updated_at=times[account_id][1],
        )
        shown.append(out)
    return shown


async def account_out(connection: Connection, account_id: AccountId) -> OneAccountOut:
    """One account, also by the id of one merged into it, with its children. Raises NoSuchAccount."""
    account_id = await kept(account_id, connection)
    (out,) = await accounts_out(connection, [account_id])
    children = [AccountRef(**dict(row)) for row in await queries.children_of(connection, account_id)]
    return OneAccountOut(**out.model_dump(), children=children)


async def match_out(connection: Connection, naming: Naming, *, makes_account: bool) -> MatchOut:
    """What matching says."""
    account_id = naming.match.account_id
    account = (await queries.accounts_of(connection, [account_id]))[account_id] if account_id else None
    return MatchOut(
        account=AccountRef(account_id=account.account_id, name=account.name) if account else None,
        matched_by=naming.match.matched_by,
        reason=naming.match.reason,
        makes_account=makes_account,
        tie_breaker=naming.tie_breaker,
        candidates=[
            CandidateOut(
                account_id=one.candidate.account_id,
                name=one.candidate.name,
                kept=one.kept,
                why=one.why,
                likeness=one.likeness,
            )
            for one in naming.weighed
        ],
    )
