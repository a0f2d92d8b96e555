"""The statements about accounts that became other ones."""

from collections.abc import Sequence

from shared.db import Connection
from shared.events import AccountChanged
from shared.ids import AccountId, LeadId

# How many merges are followed, as `shared.identity` does.
KEPT_ACCOUNT = """
CASE WHEN leads.erased THEN coalesce((
    WITH RECURSIVE up AS (
        SELECT merged_into, 1 AS depth FROM accounts WHERE account_id = {account} AND merged_into IS NOT NULL
        UNION ALL
        SELECT accounts.merged_into, depth + 1 FROM up JOIN accounts ON accounts.account_id = up.merged_into
        WHERE accounts.merged_into IS NOT NULL AND depth < 64
    )
    SELECT merged_into FROM up ORDER BY depth DESC LIMIT 1
), {account}) ELSE {account} END
"""
LOCK_MERGES = "SELECT pg_advisory_xact_lock(hashtextextended('attribution/accounts', 0))"
SHARE_MERGES = "SELECT pg_advisory_xact_lock_shared(hashtextextended('attribution/accounts', 0))"
PUT_ACCOUNTS = """
INSERT INTO accounts AS known (account_id, revision, merged_into)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])
ON CONFLICT (account_id) DO UPDATE SET revision = excluded.revision, merged_into = excluded.merged_into
WHERE known.revision < excluded.revision
RETURNING account_id, old.merged_into IS DISTINCT FROM new.merged_into AS moved
"""
ERASED_BELOW = """
WITH RECURSIVE below AS (
    SELECT account_id FROM unnest($1::text[]) AS account_id
    UNION
    SELECT accounts.account_id FROM below JOIN accounts ON accounts.merged_into = below.account_id
)
SELECT lead_id FROM leads WHERE erased AND account_id IN (SELECT account_id FROM below)
"""


async def put_accounts(connection: Connection, events: Sequence[AccountChanged]) -> list[AccountId]:
    """Store accounts, the highest revision winning; answers those that are another one now than before.

    Each account is named once.
    """
    rows = await connection.fetch(
        PUT_ACCOUNTS,
        [event.account_id for event in events],
        [event.revision for event in events],
        [event.merged_into for event in events],
    )
    return [row["account_id"] for row in rows if row["moved"]]


async def lock_merges(connection: Connection) -> None:
    """Wait for those who make somebody of an account an erased one, and let them wait: neither would see the other."""
    await connection.execute(LOCK_MERGES)


async def share_merges(connection: Connection) -> None:
    """See all merges of accounts from now on that somebody may make who does not see what was written here."""
    await connection.execute(SHARE_MERGES)


async def erased_of(connection: Connection, account_ids: Sequence[AccountId]) -> list[LeadId]:
    """The erased ids whose account is one of these, or became one of them."""
    return [row["lead_id"] for row in await connection.fetch(ERASED_BELOW, account_ids)]
