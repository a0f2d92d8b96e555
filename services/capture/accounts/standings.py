"""How leads stand to accounts: the statements about it, and about leads that are to be matched again."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import asyncpg

from services.capture.accounts.domain import Match, Standing
from shared.db import COPIED_FROM, Connection
from shared.ids import AccountId, LeadId

By = Literal["account", "domain", "name", "begin", "every"]

# The newest choice made by hand, of all leads of a person, counts.
READ = """
WITH RECURSIVE down AS (
    SELECT id AS root, id AS lead_id, 0 AS depth FROM unnest($1::text[]) AS id
    UNION ALL
    SELECT down.root, below.lead_id, depth + 1
    FROM down CROSS JOIN LATERAL (SELECT lead_id FROM leads WHERE merged_into = down.lead_id OFFSET 0) AS below
    WHERE depth < 64
), choices AS (
    SELECT DISTINCT ON (root) root, account_choices.account_id, at
    FROM down JOIN account_choices USING (lead_id) ORDER BY root, at DESC, lead_id
)
SELECT asked.lead_id, choices.at IS NOT NULL AS is_chosen, coalesce(chosen.merged_into, chosen.account_id) AS choice,
    standing.lead_id IS NOT NULL AS is_known, standing.account_id, standing.matched_by, standing.reason,
    standing.domain, standing.name_key
FROM unnest($1::text[]) AS asked (lead_id)
LEFT JOIN choices ON choices.root = asked.lead_id
LEFT JOIN accounts AS chosen ON chosen.account_id = choices.account_id
LEFT JOIN lead_accounts AS standing ON standing.lead_id = asked.lead_id
"""
COLUMNS = ("lead_id", "account_id", "matched_by", "reason", "domain", "name_key")
SAVE = """
INSERT INTO lead_accounts (lead_id, account_id, matched_by, reason, domain, name_key)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (lead_id) DO UPDATE SET account_id = excluded.account_id, matched_by = excluded.matched_by,
    reason = excluded.reason, domain = excluded.domain, name_key = excluded.name_key
"""
OWNERS = """
SELECT domain, account_id, made_by = 'leads' AND name = domain AS is_nameless
FROM account_domains JOIN accounts USING (account_id) WHERE domain = ANY($1)
"""
SHOWN = """
SELECT standing.lead_id, kept.account_id, kept.name, standing.matched_by, standing.reason
FROM lead_accounts AS standing
LEFT JOIN accounts AS matched ON matched.account_id = standing.account_id
LEFT JOIN accounts AS kept ON kept.account_id = coalesce(matched.merged_into, matched.account_id)
WHERE standing.lead_id = ANY($1)
"""
CHOOSE = """
INSERT INTO account_choices (lead_id, account_id, actor, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (lead_id) DO UPDATE SET account_id = excluded.account_id, actor = excluded.actor, at = excluded.at
"""
CHOOSE_NO_MORE = "DELETE FROM account_choices WHERE lead_id = ANY($1) RETURNING lead_id"
FORGET_STANDINGS = "DELETE FROM lead_accounts WHERE lead_id = ANY($1)"
FORGET_CHOICES = "DELETE FROM account_choices WHERE lead_id = ANY($1)"
OF_ACCOUNT = """
SELECT lead_id FROM lead_accounts WHERE account_id = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $3
"""
OF_DOMAIN = "SELECT lead_id FROM lead_accounts WHERE domain = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $3"
OF_NAME = """
SELECT lead_id FROM lead_accounts WHERE name_key = $1 AND lead_id > $2 AND name_key IS NOT NULL AND domain IS NULL
ORDER BY lead_id LIMIT $3
"""
OF_BEGIN = """
SELECT lead_id FROM lead_accounts
WHERE left(name_key, 4) = $1 AND lead_id > $2 AND name_key IS NOT NULL AND domain IS NULL
ORDER BY lead_id LIMIT $3
"""
OF_EVERY = """
SELECT lead_id FROM leads
WHERE lead_id > $2 AND merged_into IS NULL AND erased_at IS NULL AND revision > 0 AND $1 = ''
ORDER BY lead_id LIMIT $3
"""
ASK_AGAIN = """
INSERT INTO rematches (by, key) SELECT DISTINCT by, key FROM unnest($1::text[], $2::text[]) AS asked (by, key)
ORDER BY by, key
ON CONFLICT (by, key) DO UPDATE SET settled_at = NULL, seen_at = NULL, after_lead = ''
WHERE rematches.settled_at IS NOT NULL
"""
SEE_REMATCHES = """
UPDATE rematches SET settled_at = pg_snapshot_xmax(pg_current_snapshot()), seen_at = clock_timestamp()
WHERE settled_at IS NULL
"""
DUE = """
SELECT by, key, after_lead, settled_at::text FROM rematches
WHERE settled_at <= pg_snapshot_xmin(pg_current_snapshot()) OR seen_at < clock_timestamp() - interval '2 minutes'
ORDER BY seen_at, by, key LIMIT $1
"""
GET_ON = "UPDATE rematches SET after_lead = $3 WHERE by = $1 AND key = $2 AND settled_at::text = $4"
DONE = """
DELETE FROM rematches USING unnest($1::text[], $2::text[], $3::text[]) AS done (by, key, settled_at)
WHERE rematches.by = done.by AND rematches.key = done.key AND rematches.settled_at::text = done.settled_at
"""
WAITING = "SELECT count(*) FROM rematches"
_LEADS = {"account": OF_ACCOUNT, "domain": OF_DOMAIN, "name": OF_NAME, "begin": OF_BEGIN, "every": OF_EVERY}
_LEADS_OF_EACH = {
    by: f"""
SELECT asked.key, found.lead_id FROM unnest($1::text[], $2::text[]) AS asked (key, after_lead)
CROSS JOIN LATERAL ({statement.replace("$1", "asked.key").replace("$2", "asked.after_lead")}) AS found
"""
    for by, statement in _LEADS.items()
}


@dataclass(frozen=True, slots=True)
class Rematch:
    """Leads to be matched again, as far as that has come. `settled_at` tells it from one that was asked for later."""

    by: By
    key: str
    after_lead: str
    settled_at: str


async def read(
    connection: Connection, lead_ids: Sequence[LeadId]
) -> tuple[dict[LeadId, Standing], dict[LeadId, AccountId | None]]:
    """How leads stand, and what was chosen by hand for those for whom it was."""
    known: dict[LeadId, Standing] = {}
    choices: dict[LeadId, AccountId | None] = {}
    for row in await connection.fetch(READ, sorted(lead_ids)):
        if row["is_chosen"]:
            choices[row["lead_id"]] = row["choice"]
        if row["is_known"]:
            match = Match(row["account_id"], row["matched_by"], row["reason"])
            known[row["lead_id"]] = Standing(row["lead_id"], match, row["domain"], row["name_key"])
    return known, choices


async def save(connection: Connection, changed: Sequence[Standing], known: Container[LeadId]) -> None:
    """Save how leads stand now; the rows of the leads are locked since it was read of which it is `known`."""
    rows = [
        (one.lead_id, one.match.account_id, one.match.matched_by, one.match.reason, one.domain, one.name_key)
        for one in sorted(changed, key=lambda standing: standing.lead_id)
    ]
    new = [row for row in rows if row[0] not in known]
    if len(new) >= COPIED_FROM:
        await connection.copy_records_to_table("lead_accounts", records=new, columns=COLUMNS)
        rows = [row for row in rows if row[0] in known]
    if rows:
        await connection.execute(SAVE, *(list(column) for column in zip(*rows, strict=True)))


async def owners(connection: Connection, domains: Sequence[str]) -> list[asyncpg.Record]:
    """Whose domains are, and whether the account has no other name than that yet."""
    return await connection.fetch(OWNERS, domains)


async def shown(connection: Connection, lead_ids: Sequence[LeadId]) -> dict[LeadId, asyncpg.Record]:
    """The account of each lead as the API shows it."""
    return {row["lead_id"]: row for row in await connection.fetch(SHOWN, sorted(lead_ids))}


async def choose(
    connection: Connection, lead_id: LeadId, account_id: AccountId | None, actor: str, at: datetime
) -> None:
    """Remember what somebody chose."""
    await connection.execute(CHOOSE, lead_id, account_id, actor, at)


async def choose_no_more(connection: Connection, lead_ids: Sequence[LeadId]) -> bool:
    """Forget what was chosen. False if nothing was."""
    return bool(await connection.fetch(CHOOSE_NO_MORE, lead_ids))


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """These leads belong to no account any more; what was chosen by hand is kept."""
    await connection.execute(FORGET_STANDINGS, lead_ids)


async def forget_choices(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Nor is it known what was chosen for them."""
    await connection.execute(FORGET_CHOICES, lead_ids)


async def leads_of(connection: Connection, account_id: AccountId, after: str, limit: int) -> list[LeadId]:
    """The leads of an account after one, in the order of their ids."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(OF_ACCOUNT, account_id, after, limit)]


async def ask_again(connection: Connection, asked: Iterable[tuple[By, str]]) -> None:
    """Let leads be matched again, in the background."""
    wanted = list(asked)
    if wanted:
        await connection.execute(ASK_AGAIN, [by for by, _ in wanted], [key for _, key in wanted])


async def due_rematches(connection: Connection, limit: int) -> list[Rematch]:
    """The rematches that are due next: nobody is under way any more who may not have seen what they were asked for."""
    await connection.execute(SEE_REMATCHES)
    return [Rematch(**dict(row)) for row in await connection.fetch(DUE, limit)]


async def leads_to_match(connection: Connection, due: Sequence[Rematch], limit: int) -> dict[Rematch, list[LeadId]]:
    """The next leads of rematches by the same thing, of each as many as `limit`; together not many more than that."""
    found: dict[Rematch, list[LeadId]] = {}
    rows = await connection.fetch(
        _LEADS_OF_EACH[due[0].by], [one.key for one in due], [one.after_lead for one in due], limit
    )
    by_key: dict[str, list[LeadId]] = {}
    for row in rows:
        by_key.setdefault(row["key"], []).append(LeadId(row["lead_id"]))
    for rematch in due:
        found[rematch] = by_key.get(rematch.key, [])
        if sum(map(len, found.values())) >= limit:
            break
    return found


async def get_on(connection: Connection, rematch: Rematch, last: LeadId) -> None:
    """A rematch has come as far as this lead; unless it was asked for again meanwhile."""
    await connection.execute(GET_ON, rematch.by, rematch.key, last, rematch.settled_at)


async def done(connection: Connection, rematches: Sequence[Rematch]) -> None:
    """Rematches have come to their end; unless they were asked for again meanwhile."""
    columns = [(one.by, one.key, one.settled_at) for one in rematches]
    await connection.execute(DONE, *(list(column) for column in zip(*columns, strict=True)))


async def waiting(connection: Connection) -> int:
    """How many rematches are not done."""
    return int(await connection.fetchval(WAITING))
