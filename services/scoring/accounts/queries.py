"""Accounts, the people below them, and what was told of their scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

import asyncpg

from services.scoring.accounts.domain import Company
from shared.db import Connection
from shared.events import Grade
from shared.ids import AccountId, LeadId

FOLD = """
INSERT INTO accounts AS known
    (account_id, revision, parent_id, merged_into, industry, employees, annual_revenue, country)
SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[]
)
ON CONFLICT (account_id) DO UPDATE SET revision = excluded.revision, parent_id = excluded.parent_id,
    merged_into = excluded.merged_into, industry = excluded.industry, employees = excluded.employees,
    annual_revenue = excluded.annual_revenue, country = excluded.country
WHERE known.revision < excluded.revision
RETURNING new.account_id, new.parent_id, new.merged_into, old.parent_id AS old_parent_id,
    old.merged_into AS old_merged_into
"""
KNOWN = """
SELECT account_id, revision, parent_id, merged_into, industry, employees, annual_revenue, country FROM accounts
WHERE account_id = ANY($1)
"""
# Facts of several accounts come in any order, so that for a moment they may close a circle: no pair comes twice.
ABOVE = """
WITH RECURSIVE up AS (
    SELECT account_id FROM unnest($1::text[]) AS account_id
    UNION
    SELECT coalesce(accounts.merged_into, accounts.parent_id) FROM up JOIN accounts USING (account_id)
    WHERE coalesce(accounts.merged_into, accounts.parent_id) IS NOT NULL
)
SELECT account_id FROM up
"""
SURVIVOR = """
WITH RECURSIVE up AS (
    SELECT $1::text AS account_id, 0 AS depth
    UNION
    SELECT accounts.merged_into, depth + 1 FROM up JOIN accounts USING (account_id)
    WHERE accounts.merged_into IS NOT NULL AND depth < 64
)
SELECT account_id FROM up ORDER BY depth DESC LIMIT 1
"""
FAMILIES = """
WITH RECURSIVE family AS (
    SELECT account_id AS root, account_id FROM unnest($1::text[]) AS account_id
    UNION
    SELECT family.root, below.account_id
    FROM family JOIN accounts AS below ON coalesce(below.merged_into, below.parent_id) = family.account_id
    WHERE $2 OR below.merged_into IS NOT NULL
)
SELECT root, account_id FROM family ORDER BY root, account_id
"""
PEOPLE = """
SELECT person_id, lead ->> 'account_id' AS account_id FROM scores
WHERE lead ->> 'account_id' = ANY($1) ORDER BY person_id
"""
MARK = "INSERT INTO account_marks (account_id) SELECT unnest($1::text[])"
TAKE_MARKS = """
DELETE FROM account_marks WHERE mark IN
    (SELECT mark FROM account_marks ORDER BY mark LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING account_id
"""
# A projection that was built anew may know of accounts what the one before did not.
FOLLOW_PROJECTION = """
WITH moved AS (
    UPDATE account_scoring SET projection = projections.version FROM projections
    WHERE account_scoring.projection IS DISTINCT FROM projections.version RETURNING 1
)
INSERT INTO account_marks (account_id)
SELECT account_id FROM accounts WHERE EXISTS (SELECT 1 FROM moved)
UNION SELECT lead ->> 'account_id' FROM scores
WHERE lead ->> 'account_id' IS NOT NULL AND EXISTS (SELECT 1 FROM moved)
"""
STANDING = "account_id, revision, engagement, fit, total, grade, people, engaged_people, rules_version, at, due_at"
DUE = """
SELECT account_id FROM account_standings WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
OUTDATED = """
SELECT account_id FROM account_standings WHERE rules_version < $1 OR rules_version > $1 LIMIT $2
FOR UPDATE SKIP LOCKED
"""
NEXT_DUE = "SELECT min(due_at) FROM account_standings WHERE due_at IS NOT NULL"
MAKE = "INSERT INTO account_standings (account_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
LOCK = f"SELECT {STANDING} FROM account_standings WHERE account_id = ANY($1) ORDER BY account_id FOR UPDATE"
SAVE = """
UPDATE account_standings SET revision = new.revision, engagement = new.engagement, fit = new.fit, total = new.total,
    grade = new.grade, people = new.people, engaged_people = new.engaged_people, rules_version = new.rules_version,
    at = new.at, due_at = new.due_at
FROM unnest($1::text[], $2::bigint[], $3::double precision[], $4::integer[], $5::double precision[], $6::text[],
    $7::integer[], $8::integer[], $9::integer[], $10::timestamptz[], $11::timestamptz[]) AS new
    (account_id, revision, engagement, fit, total, grade, people, engaged_people, rules_version, at, due_at)
WHERE account_standings.account_id = new.account_id
"""
FORGET = "DELETE FROM account_standings WHERE account_id = ANY($1)"
LISTED = f"""
SELECT {STANDING} FROM account_standings
WHERE total IS NOT NULL AND ($1::double precision IS NULL OR total < $1 OR (total = $1 AND account_id > $2::text))
ORDER BY total DESC, account_id LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was told of an account last, and when to look again. Without a total it is none, or another one by now."""

    account_id: AccountId
    revision: int = 0
    engagement: float | None = None
    fit: int | None = None
    total: float | None = None
    grade: Grade | None = None
    people: int | None = None
    engaged_people: int | None = None
    rules_version: int | None = None
    at: datetime | None = None
    due_at: datetime | None = None


async def fold_accounts(connection: Connection, companies: Sequence[Company]) -> set[AccountId]:
    """Keep the highest revision of each; answers those that changed, and those above them before and after."""
    rows = sorted(map(astuple, companies))
    found = await connection.fetch(FOLD, *(list(column) for column in zip(*rows, strict=True)))
    return {AccountId(account_id) for row in found for account_id in row.values() if account_id is not None}


async def companies_of(connection: Connection, account_ids: Iterable[AccountId]) -> dict[AccountId, Company]:
    """Those of the accounts that were told of."""
    rows = await connection.fetch(KNOWN, sorted(set(account_ids)))
    return {AccountId(row["account_id"]): Company(**dict(row)) for row in rows}


async def with_those_above(connection: Connection, account_ids: Iterable[AccountId]) -> set[AccountId]:
    """Accounts, those above them, and those that they were merged into."""
    rows = await connection.fetch(ABOVE, sorted(set(account_ids)))
    return {AccountId(row["account_id"]) for row in rows}


async def survivor_of(connection: Connection, account_id: AccountId) -> AccountId:
    """The account that this one is by now."""
    return AccountId(await connection.fetchval(SURVIVOR, account_id))


async def families_of(
    connection: Connection, account_ids: Sequence[AccountId], *, children: bool
) -> dict[AccountId, list[AccountId]]:
    """The accounts whose people count for each account: itself, those merged into it, and with `children` all below."""
    families: dict[AccountId, list[AccountId]] = {}
    for row in await connection.fetch(FAMILIES, account_ids, children):
        families.setdefault(AccountId(row["root"]), []).append(AccountId(row["account_id"]))
    return families


async def people_of(connection: Connection, account_ids: Iterable[AccountId]) -> dict[LeadId, AccountId]:
    """The persons whose profile names one of these accounts, and which."""
    rows = await connection.fetch(PEOPLE, sorted(set(account_ids)))
    return {LeadId(row["person_id"]): AccountId(row["account_id"]) for row in rows}


async def mark_accounts(connection: Connection, account_ids: Iterable[str]) -> None:
    """Have accounts looked at soon: something about their people changed. Marks never wait for one another."""
    if ids := sorted(set(account_ids)):
        await connection.execute(MARK, ids)


async def follow_projection(connection: Connection) -> None:
    """Have all accounts looked at when another projection serves."""
    await connection.execute(FOLLOW_PROJECTION)


async def take_marks(connection: Connection, limit: int) -> list[AccountId]:
    """Accounts to be looked at, as often as they were marked; they are taken off the list."""
    return [AccountId(row["account_id"]) for row in await connection.fetch(TAKE_MARKS, limit)]


async def claim_due(connection: Connection, now: datetime, limit: int) -> list[AccountId]:
    """Accounts whose time has come, locked."""
    return [AccountId(row["account_id"]) for row in await connection.fetch(DUE, now, limit)]


async def claim_outdated(connection: Connection, version: int, limit: int) -> list[AccountId]:
    """Accounts scored under another version of the rules, locked."""
    return [AccountId(row["account_id"]) for row in await connection.fetch(OUTDATED, version, limit)]


async def next_due(connection: Connection) -> datetime | None:
    """When the next account's time comes."""
    at: datetime | None = await connection.fetchval(NEXT_DUE)
    return at


async def lock_standings(connection: Connection, account_ids: Sequence[AccountId]) -> Mapping[AccountId, Standing]:
    """What was told of accounts; nobody else scores them before this transaction ends."""
    rows = await connection.fetch(LOCK, account_ids)
    if len(rows) < len(account_ids):
        await connection.execute(MAKE, account_ids)
        rows = await connection.fetch(LOCK, account_ids)
    return {AccountId(row["account_id"]): Standing(**dict(row)) for row in rows}


async def save_standings(connection: Connection, standings: Sequence[Standing]) -> None:
    """Write what is told of accounts now."""
    if standings:
        rows = sorted(map(astuple, standings), key=lambda row: row[0])
        await connection.execute(SAVE, *(list(column) for column in zip(*rows, strict=True)))


async def forget_standings(connection: Connection, account_ids: Sequence[AccountId]) -> None:
    """Remove the rows of accounts that nothing is known of."""
    if account_ids:
        await connection.execute(FORGET, account_ids)


async def listed(connection: Connection, after: tuple[float, str] | None, limit: int) -> list[asyncpg.Record]:
    """Accounts by what was told of them last, the highest total first."""
    total, account_id = after or (None, None)
    return await connection.fetch(LISTED, total, account_id, limit)
