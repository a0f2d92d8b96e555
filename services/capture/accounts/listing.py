"""Accounts found by what they are known by, page by page."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.capture.accounts import queries
from services.capture.accounts.names import company_key
from shared.db import Connection
from shared.ids import AccountId


@dataclass(frozen=True, slots=True)
class Sought:
    """What accounts are looked for by; all that is given must be so."""

    domain: str | None = None
    name: str | None = None
    external_id: str | None = None
    parent_id: AccountId | None = None


async def find_accounts(connection: Connection, sought: Sought, place: Any, limit: int) -> tuple[list[AccountId], Any]:
    """One page of accounts after a place, and the place after it, if there are more. Each way has its index."""
    name_key = company_key(sought.name) if sought.name else None
    if sought.name and name_key is None:
        return [], None  # no account can be known by that
    if sought.domain or sought.external_id:
        return await _known_by(connection, sought, name_key), None
    if name_key is None and sought.parent_id is None:
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else (None, None)
        rows = await connection.fetch(queries.NEWEST, *after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = [last["created_at"].isoformat(), last["account_id"]] if last else None
        return [AccountId(row["account_id"]) for row in rows[:limit]], more
    after_id = str(place[1]) if place else ""
    if name_key is not None:
        rows = await connection.fetch(queries.NAMED, name_key, after_id, sought.parent_id, limit + 1)
    else:
        rows = await connection.fetch(queries.BELOW, sought.parent_id, after_id, limit + 1)
    found = [AccountId(row["account_id"]) for row in rows]
    return found[:limit], ["", found[limit - 1]] if len(found) > limit else None


async def _known_by(connection: Connection, sought: Sought, name_key: str | None) -> list[AccountId]:
    """The one account of an external id or a domain, if everything else that is asked for is so too."""
    asked = [sought.domain] if sought.domain else []
    known = await queries.known_accounts(connection, sought.external_id, asked)
    if len(known) < len(asked) + bool(sought.external_id) or len(set(known.values())) > 1:
        return []
    account_id = next(iter(known.values()))
    one = (await queries.accounts_of(connection, [account_id]))[account_id]
    fits = name_key in (None, company_key(one.name)) and sought.parent_id in (None, one.parent_id)
    return [account_id] if fits else []
