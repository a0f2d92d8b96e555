"""The statements about accounts and their hierarchy."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.capture.accounts.domain import DEEPEST, Account, Candidate
from shared.db import Connection
from shared.ids import AccountId, LeadId

MOST_OF_A_NAME = 50
MOST_OF_A_BEGIN = 200
MOST_CHILDREN = 200
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '/accounts', 0))"
_WITH_DOMAINS = """
SELECT accounts.*, ARRAY(
    SELECT domain FROM account_domains WHERE account_domains.account_id = accounts.account_id ORDER BY domain
) AS domains FROM accounts
"""
ACCOUNTS = f"{_WITH_DOMAINS} WHERE account_id = ANY($1) ORDER BY account_id"
LOCK = f"{_WITH_DOMAINS} WHERE account_id = ANY($1) ORDER BY account_id FOR UPDATE OF accounts"
KEPT = "SELECT coalesce(merged_into, account_id) FROM accounts WHERE account_id = $1"
OF_EXTERNAL_ID = "SELECT coalesce(merged_into, account_id) FROM accounts WHERE external_id = $1"
OF_DOMAINS = "SELECT domain, account_id FROM account_domains WHERE domain = ANY($1)"
ADD = """
INSERT INTO accounts (
    account_id, name, name_key, external_id, parent_id, owner_id, industry, employees, annual_revenue, country,
    attributes, made_by
) SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
    $10::text[], $11::jsonb[], $12::text[]
) ON CONFLICT DO NOTHING RETURNING account_id
"""
SAVE = """
UPDATE accounts SET revision = $2, name = $3, name_key = $4, external_id = $5, parent_id = $6, owner_id = $7,
    industry = $8, employees = $9, annual_revenue = $10, country = $11, attributes = $12, made_by = $13,
    merged_into = $14, updated_at = clock_timestamp()
WHERE account_id = $1
"""
PLACE = "INSERT INTO accounts (account_id, name, made_by, revision) VALUES ($1, '', 'api', 0) ON CONFLICT DO NOTHING"
TAKE_DOMAINS = """
INSERT INTO account_domains (domain, account_id)
SELECT domain, account_id FROM unnest($1::text[], $2::text[]) AS new (domain, account_id) ORDER BY domain
ON CONFLICT DO NOTHING RETURNING domain, account_id
"""
GIVE_UP_DOMAINS = "DELETE FROM account_domains WHERE account_id = $1 AND NOT domain = ANY($2)"
MOVE_DOMAINS = "UPDATE account_domains SET account_id = $2 WHERE account_id = $1"
RAISE = """
UPDATE accounts SET revision = revision + 1, updated_at = clock_timestamp() WHERE account_id = ANY($1)
"""
RENAME = """
UPDATE accounts SET name = new.name, name_key = new.name_key
FROM unnest($1::text[], $2::text[], $3::text[]) AS new (account_id, name, name_key)
WHERE accounts.account_id = new.account_id
"""
ABOVE = """
WITH RECURSIVE up AS (
    SELECT account_id AS origin, account_id, parent_id, name, 0 AS depth FROM accounts WHERE account_id = ANY($1)
    UNION ALL
    SELECT up.origin, accounts.account_id, accounts.parent_id, accounts.name, depth + 1
    FROM up JOIN accounts ON accounts.account_id = up.parent_id WHERE depth < $2
)
SELECT origin, account_id, name FROM up WHERE depth > 0 ORDER BY origin, depth
"""
HEIGHT = """
WITH RECURSIVE down AS (
    SELECT account_id, 0 AS depth FROM accounts WHERE account_id = ANY($1)
    UNION ALL
    SELECT accounts.account_id, depth + 1 FROM down JOIN accounts ON accounts.parent_id = down.account_id
    WHERE depth < $2
)
SELECT max(depth) FROM down
"""
CHILDREN = """
SELECT account_id, name FROM accounts WHERE parent_id = $1 AND merged_into IS NULL ORDER BY account_id LIMIT $2
"""
ADOPT = "UPDATE accounts SET parent_id = $2 WHERE parent_id = $1 AND account_id <> $2 RETURNING account_id"
FOLLOW = "UPDATE accounts SET merged_into = $2 WHERE merged_into = $1 RETURNING account_id"
# Accounts of which nothing is known but what these leads told, and that nobody else is of.
TOLD_BY = """
SELECT account_id FROM accounts
WHERE account_id IN (SELECT account_id FROM lead_accounts WHERE lead_id = ANY($1))
  AND made_by = 'leads' AND merged_into IS NULL
  AND NOT EXISTS (SELECT 1 FROM lead_accounts AS other
                  WHERE other.account_id = accounts.account_id AND NOT other.lead_id = ANY($1))
  AND NOT EXISTS (SELECT 1 FROM accounts AS below WHERE below.parent_id = accounts.account_id)
  AND NOT EXISTS (SELECT 1 FROM accounts AS gone WHERE gone.merged_into = accounts.account_id)
ORDER BY account_id FOR UPDATE
"""
REMOVE_DOMAINS = "DELETE FROM account_domains WHERE account_id = ANY($1)"
REMOVE = "DELETE FROM accounts WHERE account_id = ANY($1)"
OF_NAMES = """
SELECT DISTINCT asked.name_key AS asked, kept.account_id, kept.name, kept.country, ARRAY(
    SELECT domain FROM account_domains WHERE account_domains.account_id = kept.account_id ORDER BY domain
) AS domains
FROM unnest($1::text[]) AS asked (name_key)
CROSS JOIN LATERAL (
    SELECT coalesce(merged_into, account_id) AS account_id FROM accounts
    WHERE name_key = asked.name_key ORDER BY account_id LIMIT $2
) AS named
JOIN accounts AS kept ON kept.account_id = named.account_id
ORDER BY asked.name_key, kept.account_id
"""
OF_BEGINS = """
SELECT asked.name_begin AS asked, array_agg(near.account_id) AS account_ids, array_agg(near.name_key) AS name_keys
FROM unnest($1::text[]) AS asked (name_begin)
CROSS JOIN LATERAL (
    SELECT account_id, name_key FROM accounts
    WHERE left(name_key, 4) = asked.name_begin AND merged_into IS NULL ORDER BY account_id LIMIT $2
) AS near
GROUP BY asked.name_begin
"""
CANDIDATES = f"{_WITH_DOMAINS} WHERE account_id = ANY($1) AND merged_into IS NULL ORDER BY account_id"
NEWEST = """
SELECT account_id, created_at FROM accounts
WHERE merged_into IS NULL AND ($1::timestamptz IS NULL OR (created_at, account_id) < ($1, $2))
ORDER BY created_at DESC, account_id DESC LIMIT $3
"""
NAMED = """
SELECT account_id FROM accounts
WHERE name_key = $1 AND merged_into IS NULL AND account_id > $2 AND ($3::text IS NULL OR parent_id = $3)
ORDER BY account_id LIMIT $4
"""
BELOW = """
SELECT account_id FROM accounts WHERE parent_id = $1 AND merged_into IS NULL AND account_id > $2
ORDER BY account_id LIMIT $3
"""
CREATED = "SELECT account_id, created_at, updated_at FROM accounts WHERE account_id = ANY($1)"


async def take_turn(connection: Connection) -> None:
    """Wait for the turn to change the hierarchy: two changes at once could close a circle that neither sees."""
    await connection.execute(TAKE_TURN)


async def accounts_of(connection: Connection, account_ids: Sequence[AccountId]) -> dict[AccountId, Account]:
    """Accounts as they stand."""
    return {row["account_id"]: _account(row) for row in await connection.fetch(ACCOUNTS, sorted(set(account_ids)))}


async def lock_accounts(connection: Connection, account_ids: Sequence[AccountId]) -> dict[AccountId, Account]:
    """Accounts as they stand, locked in the order of their ids."""
    return {row["account_id"]: _account(row) for row in await connection.fetch(LOCK, sorted(set(account_ids)))}


async def kept_account(connection: Connection, account_id: str) -> AccountId | None:
    """The account that an id means: another one, where it was merged. None if there is none."""
    found: AccountId | None = await connection.fetchval(KEPT, account_id)
    return found


async def known_accounts(
    connection: Connection, external_id: str | None, domains: Sequence[str]
) -> dict[str, AccountId]:
    """The accounts that an external id and domains are of, by what they are known by."""
    found = {row["domain"]: AccountId(row["account_id"]) for row in await domain_owners(connection, domains)}
    if external_id is not None and (owner := await connection.fetchval(OF_EXTERNAL_ID, external_id)):
        found[f"external_id {external_id}"] = AccountId(owner)
    return found


async def domain_owners(connection: Connection, domains: Sequence[str]) -> list[asyncpg.Record]:
    """Whose domains are."""
    return await connection.fetch(OF_DOMAINS, sorted(set(domains))) if domains else []


async def add_accounts(connection: Connection, accounts: Sequence[tuple[Account, str | None]]) -> int:
    """Add accounts, each with the key of its name; answers how many, less than given if an external id is taken."""
    columns = [
        (
            one.account_id, one.name, key, one.external_id, one.parent_id, one.owner_id, one.industry, one.employees,
            one.annual_revenue, one.country, dict(one.attributes), one.made_by,
        )
        for one, key in accounts
    ]  # fmt: skip
    return len(await connection.fetch(ADD, *(list(column) for column in zip(*columns, strict=True))))


async def save_account(connection: Connection, one: Account, name_key: str | None) -> None:
    """Save a locked account."""
    await connection.execute(
        SAVE, one.account_id, one.revision, one.name, name_key, one.external_id, one.parent_id, one.owner_id,
        one.industry, one.employees, one.annual_revenue, one.country, dict(one.attributes), one.made_by,
        one.merged_into,
    )  # fmt: skip


async def restore(connection: Connection, one: Account, name_key: str | None) -> None:
    """Bring an account back as it was told last; a domain that another one has by now stays there."""
    await connection.execute(PLACE, one.account_id)
    await save_account(connection, one, name_key)
    await give_up_domains(connection, one.account_id, one.domains)
    await take_domains(connection, dict.fromkeys(one.domains, one.account_id))


async def take_domains(connection: Connection, owners: Mapping[str, AccountId]) -> dict[str, AccountId]:
    """Give domains to accounts; answers those that nobody else had."""
    domains = sorted(owners)
    rows = await connection.fetch(TAKE_DOMAINS, domains, [owners[domain] for domain in domains])
    return {row["domain"]: AccountId(row["account_id"]) for row in rows}


async def raise_revisions(connection: Connection, account_ids: Sequence[AccountId]) -> None:
    """Accounts are told anew."""
    await connection.execute(RAISE, sorted(account_ids))


async def rename(connection: Connection, names: Mapping[AccountId, tuple[str, str]]) -> None:
    """Name accounts that were only known by their domain."""
    ids = sorted(names)
    await connection.execute(RENAME, ids, [names[one][0] for one in ids], [names[one][1] for one in ids])


async def accounts_above(
    connection: Connection, account_ids: Sequence[AccountId]
) -> dict[AccountId, list[tuple[AccountId, str]]]:
    """Those above each account, the nearest first, with their names."""
    above: dict[AccountId, list[tuple[AccountId, str]]] = {account_id: [] for account_id in account_ids}
    for row in await connection.fetch(ABOVE, sorted(set(account_ids)), DEEPEST + 1):
        above[row["origin"]].append((AccountId(row["account_id"]), row["name"]))
    return above


async def height_of(connection: Connection, account_id: AccountId) -> int:
    """How many levels are below an account."""
    return int(await connection.fetchval(HEIGHT, [account_id], DEEPEST + 1) or 0)


async def children_of(connection: Connection, account_id: AccountId) -> list[asyncpg.Record]:
    """The accounts directly below one, as many as are shown."""
    return await connection.fetch(CHILDREN, account_id, MOST_CHILDREN)


async def named_accounts(connection: Connection, name_keys: Sequence[str]) -> dict[str, list[Candidate]]:
    """The accounts of each name, also by names of those merged into them; of a popular name the first ones."""
    found: dict[str, list[Candidate]] = {}
    for row in await connection.fetch(OF_NAMES, sorted(set(name_keys)), MOST_OF_A_NAME):
        found.setdefault(row["asked"], []).append(_candidate(row, row["asked"]))
    several = [one.account_id for candidates in found.values() if len(candidates) > 1 for one in candidates]
    if several:
        above = await accounts_above(connection, several)
        for name_key, candidates in found.items():
            found[name_key] = [
                Candidate(
                    one.account_id, one.name, one.name_key, one.country, one.domains,
                    tuple(account_id for account_id, _ in above.get(one.account_id, ())),
                )
                for one in candidates
            ]  # fmt: skip
    return found


async def near_names(connection: Connection, begins: Sequence[str]) -> dict[str, list[tuple[AccountId, str]]]:
    """The accounts whose names begin alike, with the keys of their names; of a popular beginning the first ones."""
    rows = await connection.fetch(OF_BEGINS, sorted(set(begins)), MOST_OF_A_BEGIN)
    return {row["asked"]: list(zip(row["account_ids"], row["name_keys"], strict=True)) for row in rows}


async def candidates_of(connection: Connection, account_ids: Sequence[AccountId]) -> list[Candidate]:
    """Accounts that could be meant, in the order of their ids."""
    return [_candidate(row, row["name_key"]) for row in await connection.fetch(CANDIDATES, sorted(account_ids))]


async def times_of(
    connection: Connection, account_ids: Sequence[AccountId]
) -> dict[AccountId, tuple[datetime, datetime]]:
    """When accounts were made and changed."""
    rows = await connection.fetch(CREATED, sorted(set(account_ids)))
    return {AccountId(row["account_id"]): (row["created_at"], row["updated_at"]) for row in rows}


async def accounts_told_by(connection: Connection, lead_ids: Sequence[LeadId]) -> list[AccountId]:
    """The accounts that came from these leads alone, locked."""
    return [AccountId(row["account_id"]) for row in await connection.fetch(TOLD_BY, lead_ids)]


async def remove_accounts(connection: Connection, account_ids: Sequence[AccountId]) -> None:
    """Take accounts away, with their domains."""
    await connection.execute(REMOVE_DOMAINS, account_ids)
    await connection.execute(REMOVE, account_ids)


async def give_up_domains(connection: Connection, account_id: AccountId, kept: Sequence[str]) -> None:
    """Take all domains but these from an account."""
    await connection.execute(GIVE_UP_DOMAINS, account_id, list(kept))


async def move_domains(connection: Connection, account_id: AccountId, into: AccountId) -> None:
    """Give an account's domains to another."""
    await connection.execute(MOVE_DOMAINS, account_id, into)


async def adopt(connection: Connection, account_id: AccountId, into: AccountId) -> list[AccountId]:
    """Put an account's children below another; answers them."""
    return [AccountId(row["account_id"]) for row in await connection.fetch(ADOPT, account_id, into)]


async def follow(connection: Connection, account_id: AccountId, into: AccountId) -> list[AccountId]:
    """Let those that were merged into an account be merged into another; answers them."""
    return [AccountId(row["account_id"]) for row in await connection.fetch(FOLLOW, account_id, into)]


def _candidate(row: asyncpg.Record, name_key: str) -> Candidate:
    return Candidate(AccountId(row["account_id"]), row["name"], name_key, row["country"], tuple(row["domains"]))


def _account(row: asyncpg.Record) -> Account:
    values: dict[str, Any] = dict(row)
    for name in ("name_key", "created_at", "updated_at"):
        del values[name]
    return Account(**{**values, "domains": tuple(sorted(values["domains"]))})
