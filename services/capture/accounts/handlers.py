"""What callers do to accounts: make, change, merge; and the choice of one by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.capture.accounts import queries, standings
from services.capture.accounts.domain import DEEPEST, Account, circle, stays, united
from services.capture.accounts.names import company_key
from services.capture.accounts.standings import By
from services.capture.accounts.telling import account_drafts
from services.capture.errors import AccountTaken, Contended, NoSuchAccount, SameAccount
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid
from shared.ids import AccountId, new_id
from shared.service import Runtime

Told = Mapping[str, Any]


async def upsert_account(told: Told, at: datetime, tx: Tx, runtime: Runtime) -> tuple[AccountId, bool]:
    """Make an account, or update the one known by the external id or a domain. Answers whether it is new.

    Raises AccountTaken when they are known of different accounts.
    """
    domains = list(told.get("domains") or ())
    if told.get("parent_id"):
        await queries.take_turn(tx.connection)
    known = await queries.known_accounts(tx.connection, told.get("external_id"), domains)
    if len(set(known.values())) > 1:
        whose = ", ".join(f"{what} is of {account_id}" for what, account_id in sorted(known.items()))
        raise AccountTaken(f"{whose}; merge these accounts, or send each its own")
    if not known:
        return await _make(told, domains, at, tx, runtime), True
    (account_id,) = set(known.values())
    account = (await queries.lock_accounts(tx.connection, [account_id]))[account_id]
    if account.merged_into is not None:
        raise Contended("somebody else merged this account just now")
    told_id = told.get("external_id")
    if told_id and account.external_id not in (None, told_id) and f"external_id {told_id}" not in known:
        detail = f"{account_id}, known by {', '.join(sorted(known))}, has the external_id {account.external_id!r}"
        raise AccountTaken(f"{detail}; change it with PATCH, or leave the domain out")
    changes = {name: value for name, value in told.items() if name != "external_id" or account.external_id is None}
    if domains:
        changes["domains"] = tuple(sorted({*account.domains, *domains}))
    if told.get("attributes"):
        changes["attributes"] = {**account.attributes, **told["attributes"]}
    await _change(account, changes, at, tx, runtime)
    return account_id, False


async def patch_account(account_id: AccountId, told: Told, at: datetime, tx: Tx, runtime: Runtime) -> AccountId:
    """Change an account. Raises NoSuchAccount, AccountTaken for what is another's, Invalid for a circle."""
    if "parent_id" in told:
        await queries.take_turn(tx.connection)
    account = await _locked(account_id, tx.connection)
    changes = dict(told)
    if "domains" in changes:
        changes["domains"] = tuple(sorted(set(changes["domains"] or ())))
    if "attributes" in changes:
        changes["attributes"] = changes["attributes"] or {}
    if "name" in changes and changes["name"] is None:
        raise Invalid("look at /name", [FieldError("/name", "an account has a name; it cannot be taken back")])
    await _change(account, changes, at, tx, runtime)
    return account.account_id


async def merge_accounts(  # noqa: PLR0913  # two accounts, and which stays
    account_id: AccountId, other_id: AccountId, into: AccountId | None, at: datetime, tx: Tx, runtime: Runtime
) -> AccountId:
    """Let two accounts be one: domains, children and leads go to the one that stays, which fills what it lacks."""
    connection = tx.connection
    await queries.take_turn(connection)
    ids = [await kept(account_id, connection), await kept(other_id, connection)]
    if ids[0] == ids[1]:
        raise SameAccount(f"{account_id} and {other_id} are one account already: {ids[0]}")
    accounts = await queries.lock_accounts(connection, ids)
    times = await queries.times_of(connection, ids)
    kept_one = stays(accounts[ids[0]], accounts[ids[1]], {one: made for one, (made, _) in times.items()})
    if into is not None:
        chosen = await kept(into, connection)
        if chosen not in accounts:
            raise Invalid("look at /into", [FieldError("/into", "is neither of the two accounts")])
        kept_one = accounts[chosen]
    gone = next(one for one in accounts.values() if one.account_id != kept_one.account_id)
    above = await queries.accounts_above(connection, [kept_one.account_id])
    if gone.account_id in [parent for parent, _ in above[kept_one.account_id]]:
        kept_one = replace(kept_one, parent_id=gone.parent_id)  # it takes the place of the one above it
    await queries.save_account(connection, kept_one, company_key(kept_one.name))
    children = await queries.adopt(connection, gone.account_id, kept_one.account_id)
    followers = await queries.follow(connection, gone.account_id, kept_one.account_id)
    await queries.move_domains(connection, gone.account_id, kept_one.account_id)
    both = tuple(sorted({*kept_one.domains, *gone.domains}))
    made_by = "api" if "api" in (kept_one.made_by, gone.made_by) else kept_one.made_by
    kept_one = replace(kept_one, domains=both, made_by=made_by, **united(kept_one, gone))
    await _check_depth(kept_one, connection, "/with")
    gone = replace(gone, domains=(), merged_into=kept_one.account_id, parent_id=None)
    if kept_one.external_id is None:  # else both mean the one that stays
        kept_one, gone = replace(kept_one, external_id=gone.external_id), replace(gone, external_id=None)
    for one in (gone, kept_one):
        await queries.save_account(connection, replace(one, revision=one.revision + 1), company_key(one.name))
    await queries.raise_revisions(connection, [*children, *followers])
    await _tell([kept_one.account_id, gone.account_id, *children, *followers], at, tx, runtime)
    await standings.ask_again(connection, [("account", gone.account_id), *_waiting(kept_one), *_waiting(gone)])
    return kept_one.account_id


async def kept(account_id: AccountId, connection: Connection) -> AccountId:
    """The account that an id means. Raises NoSuchAccount."""
    found = await queries.kept_account(connection, account_id)
    if found is None:
        raise NoSuchAccount(f"there is no account {account_id}")
    return found


async def _make(told: Told, domains: Sequence[str], at: datetime, tx: Tx, runtime: Runtime) -> AccountId:
    name = told.get("name") or (domains[0] if domains else None)
    if name is None:
        raise Invalid("look at /name", [FieldError("/name", "a new account has a name or a domain")])
    fields = {key: value for key, value in told.items() if value is not None and key not in ("name", "domains")}
    account = Account(AccountId(new_id()), 1, name, tuple(sorted(set(domains))), **fields)
    account = await _placed(account, tx.connection)
    if await queries.add_accounts(tx.connection, [(account, company_key(name))]) == 0:
        raise Contended("somebody else made an account with this external id just now")
    ours = await queries.take_domains(tx.connection, dict.fromkeys(account.domains, account.account_id))
    if len(ours) < len(account.domains):
        raise Contended("somebody else made an account with this domain just now")
    await runtime.keys.emit_drafts(tx, account_drafts([account], at))
    await standings.ask_again(tx.connection, _waiting(account))
    return account.account_id


async def _change(account: Account, changes: Mapping[str, Any], at: datetime, tx: Tx, runtime: Runtime) -> None:
    """Save and tell what is another now; nothing new tells nothing."""
    connection = tx.connection
    changed = replace(account, **{**changes, "made_by": "api"})
    if changed == account:
        return
    if changed.parent_id != account.parent_id:
        changed = await _placed(changed, connection)
    if changed.external_id and changed.external_id != account.external_id:
        await _refuse_taken(changed.external_id, account.account_id, connection)
    lost, won = set(account.domains) - set(changed.domains), set(changed.domains) - set(account.domains)
    if lost:
        await queries.give_up_domains(connection, account.account_id, changed.domains)
    if won:
        ours = await queries.take_domains(connection, dict.fromkeys(won, account.account_id))
        if taken := await queries.domain_owners(connection, sorted(won - ours.keys())):
            whose = ", ".join(f"{row['domain']} is of {row['account_id']}" for row in taken)
            raise AccountTaken(f"{whose}; take it away there first, or merge the accounts")
    await queries.save_account(connection, replace(changed, revision=account.revision + 1), company_key(changed.name))
    await _tell([account.account_id], at, tx, runtime)
    again: list[tuple[By, str]] = [("domain", domain) for domain in sorted(lost | won)]
    if changed.name != account.name or changed.country != account.country or lost or won:
        again += [*_waiting(account), *_waiting(changed)]
    if changed.parent_id != account.parent_id and (key := company_key(changed.name)):
        again.append(("name", key))
    await standings.ask_again(connection, again)


def _waiting(account: Account) -> list[tuple[By, str]]:
    """Leads that may have waited for an account of this name: close names are of one country, exact ones of any."""
    key = company_key(account.name)
    if key is None:
        return []
    return [("begin", key[:4])] if account.country else [("name", key)]


async def _placed(account: Account, connection: Connection) -> Account:
    """The account below the parent it asks for, if that can be: it exists, closes no circle and is not too deep."""
    if account.parent_id is None:
        return account
    parent_id = await queries.kept_account(connection, account.parent_id)
    if parent_id is None:
        raise Invalid("look at /parent_id", [FieldError("/parent_id", f"there is no account {account.parent_id}")])
    above = (await queries.accounts_above(connection, [parent_id]))[parent_id]
    parent = (await queries.accounts_of(connection, [parent_id]))[parent_id]
    if path := circle(account, [(parent_id, parent.name), *above]):
        raise Invalid("look at /parent_id", [FieldError("/parent_id", f"would close a circle: {path}")])
    placed = replace(account, parent_id=parent_id)
    await _check_depth(placed, connection, "/parent_id", 1 + len(above))
    return placed


async def _check_depth(account: Account, connection: Connection, pointer: str, above: int | None = None) -> None:
    if above is None:
        above = len((await queries.accounts_above(connection, [account.account_id]))[account.account_id])
    if above + 1 + await queries.height_of(connection, account.account_id) > DEEPEST:
        raise Invalid(f"look at {pointer}", [FieldError(pointer, f"a hierarchy has at most {DEEPEST} levels")])


async def _refuse_taken(external_id: str, account_id: AccountId, connection: Connection) -> None:
    for owner in (await queries.known_accounts(connection, external_id, [])).values():
        if owner == account_id:
            raise AccountTaken(f"the external_id {external_id!r} means this account already, by one merged into it")
        raise AccountTaken(f"the external_id {external_id!r} is of {owner}; take it away there first, or merge them")


async def _locked(account_id: AccountId, connection: Connection) -> Account:
    account_id = await kept(account_id, connection)
    account = (await queries.lock_accounts(connection, [account_id]))[account_id]
    if account.merged_into is not None:
        raise Contended("somebody else merged this account just now")
    return account


async def _tell(account_ids: Sequence[AccountId], at: datetime, tx: Tx, runtime: Runtime) -> None:
    accounts = await queries.accounts_of(tx.connection, account_ids)
    await runtime.keys.emit_drafts(tx, account_drafts(accounts.values(), at))
