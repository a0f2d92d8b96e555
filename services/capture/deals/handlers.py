"""What is done when a delivery tells of a CRM's deal, and when somebody says whose a deal is."""

from datetime import datetime

from services.capture.accounts.domain import clues_of
from services.capture.accounts.handlers import kept
from services.capture.accounts.matching import preview
from services.capture.accounts.queries import known_accounts
from services.capture.adapters.facts import CrmFact
from services.capture.deals import queries
from services.capture.deals.domain import Clues, Tie, tie
from services.capture.leads.identifying import Named, identify
from services.capture.leads.queries import root_of
from services.capture.leads.views import family_of
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.ids import AccountId, LeadId, SourceId
from shared.service import Runtime

ENOUGH = 2
"""Of more people it is not clear whose a deal is."""


async def whose(fact: CrmFact, source_id: SourceId, delivery_id: str, at: datetime, connection: Connection) -> Tie:
    """Whose the deal is that a fact without a contact is about, as it was said before, or by its account."""
    lead_id, account_id = await queries.meet(connection, source_id, fact.external_id, fact.stage, delivery_id, at)
    if lead_id is not None:
        return Tie(lead_id, "contact")
    clues = Clues(fact.account, fact.company or fact.person.company)
    found = await _by_people(clues, await _account(clues, connection) or account_id, connection)
    await queries.settle(connection, source_id, fact.external_id, found, None, at)
    return found


async def told_with_contact(
    fact: CrmFact, lead_id: LeadId, source_id: SourceId, at: datetime, connection: Connection
) -> None:
    """A deal came with its contact: what came of it without one is that person's too, and what will come."""
    await queries.settle(connection, source_id, fact.external_id, Tie(lead_id, "contact"), None, at)


async def tie_to_lead(lead_id: LeadId | None, email: str | None, connection: Connection, runtime: Runtime) -> Tie:
    """A deal is this lead's, or theirs who has this address. Raises NoSuchLead, PersonErased, Invalid."""
    if email is not None:
        named = await identify(connection, runtime.ids, Named(email=email), None)
        lead_id = named.strong[0].own_id if named and named.strong else None
    if lead_id is None or (email is not None and await root_of(connection, lead_id) is None):
        raise Invalid("look at /email", [FieldError("/email", "is nobody's who is known here")])
    return Tie((await family_of(connection, lead_id, runtime.keys)).root.lead_id, "by_hand")


async def tie_to_account(account_id: AccountId, connection: Connection) -> Tie:
    """A deal is the only person's of this account, or nobody's until that is clear. Raises NoSuchAccount."""
    return await _by_people(Clues(), await kept(account_id, connection), connection)


async def tie_by_hand(  # noqa: PLR0913  # a deal, whose it is, and who says so
    source_id: SourceId, deal_id: str, tied: Tie, actor: str, at: datetime, connection: Connection
) -> None:
    """Somebody says whose a deal is."""
    await queries.settle(connection, source_id, deal_id, tied, actor, at)
    await queries.audit(connection, actor, source_id, deal_id, tied.reason)


async def _by_people(clues: Clues, account_id: AccountId | None, connection: Connection) -> Tie:
    people = await queries.people_of(connection, [account_id], ENOUGH) if account_id is not None else {}
    return tie(clues, account_id, people[account_id] if account_id is not None else ())


async def _account(clues: Clues, connection: Connection) -> AccountId | None:
    """The account here that has the CRM's id of the company as its external id, else the one that its name means."""
    if clues.account and (known := await known_accounts(connection, clues.account, [])):
        return next(iter(known.values()))
    if not clues.company:
        return None
    naming, _ = await preview(connection, clues_of(None, clues.company, None, None))
    return naming.match.account_id
