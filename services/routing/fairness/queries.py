"""The statements about the books of queues. Who writes them holds the dispatcher's lock."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from services.routing.fairness.domain import Account, Books, Entry, Weights, folded, touched
from shared.db import Connection
from shared.ids import AssignmentId, RepId

STATEMENT_EVERY = 256
"""A statement of all accounts follows about so many turns, so that reading the past folds few entries."""
LOCK_DISPATCHER = "SELECT number FROM dispatcher FOR UPDATE"
COUNT_UP = "UPDATE dispatcher SET number = $1"
ACCOUNT = ", ".join(Account._fields)
ALL_BOOKS = f"SELECT queue_id, rep_id, {ACCOUNT} FROM turns"
BOOKS_OF = f"{ALL_BOOKS} WHERE queue_id = $1"
PUT_ACCOUNTS = f"""
INSERT INTO turns AS known (queue_id, rep_id, {ACCOUNT})
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $7::integer[], $8::text[]
)
ON CONFLICT (queue_id, rep_id) DO UPDATE
SET since = excluded.since, balance = excluded.balance, received = excluded.received, entries = excluded.entries,
    weight = excluded.weight, away = excluded.away
"""
ENTRY = "kind, rep_id, at, units, why, weight, weights_hash, level, by_weight, assignment_id, lead_id, actor"
PUT_ENTRIES = f"""
INSERT INTO fairness_entries (number, queue_id, {ENTRY})
SELECT * FROM unnest(
    $1::bigint[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::text[], $8::integer[],
    $9::text[], $10::bigint[], $11::boolean[], $12::text[], $13::text[], $14::text[]
)
"""
PUT_WEIGHTS = """
INSERT INTO fairness_weights (weights_hash, weights) SELECT * FROM unnest($1::text[], $2::jsonb[])
ON CONFLICT DO NOTHING
"""
PUT_STATEMENT = "INSERT INTO fairness_statements (queue_id, number, books) VALUES ($1, $2, $3)"
PAID_IN = """
SELECT queue_id, rep_id FROM fairness_entries WHERE assignment_id = $1 AND kind IN ('turn', 'given') LIMIT 1
"""
STATEMENTS_BEFORE = """
SELECT DISTINCT ON (queue_id) queue_id, number, books FROM fairness_statements
WHERE number < $1 ORDER BY queue_id, number DESC
"""
QUEUES = "SELECT DISTINCT queue_id FROM turns"
ENTRIES_BETWEEN = f"""
SELECT number, queue_id, {ENTRY}, weights FROM fairness_entries LEFT JOIN fairness_weights USING (weights_hash)
WHERE queue_id = $1 AND number > $2 AND number < $3 ORDER BY number
"""
# Of one rep: also the turns in which they earned a share. The newest first.
ENTRIES_OF = f"""
SELECT number, queue_id, {ENTRY}, weights FROM fairness_entries LEFT JOIN fairness_weights USING (weights_hash)
WHERE queue_id = $1 AND number < $2
    AND ($3::text IS NULL OR rep_id = $3 OR weights @> jsonb_build_array(jsonb_build_array($3::text)))
ORDER BY number DESC LIMIT $4
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True)
class Line:
    """An entry in the books of a queue, at its place."""

    number: int
    queue_id: str
    entry: Entry


async def lock_dispatcher(connection: Connection) -> int:
    """Wait for the turn to give leads to reps; held until the transaction ends. Answers the last number used."""
    number: int = await connection.fetchval(LOCK_DISPATCHER)
    return number


async def count_up(connection: Connection, number: int) -> None:
    """The last number used is this one now."""
    await connection.execute(COUNT_UP, number)


async def all_books(connection: Connection) -> dict[str, dict[RepId, Account]]:
    """The books of every queue."""
    return _books(await connection.fetch(ALL_BOOKS))


async def books_of(connection: Connection, queue_id: str) -> dict[RepId, Account]:
    """The books of one queue."""
    return _books(await connection.fetch(BOOKS_OF, queue_id)).get(queue_id, {})


async def write(
    connection: Connection, lines: Sequence[Line], before: Mapping[str, Books], after: Mapping[str, Books]
) -> None:
    """Write entries, in order, and the accounts that they changed."""
    weights = {_hash(line.entry.weights): line.entry.weights for line in lines if line.entry.weights}
    if weights:
        await connection.execute(PUT_WEIGHTS, list(weights), list(weights.values()))
    rows = [(line.number, line.queue_id, *_columns(line.entry)) for line in lines]
    await connection.execute(PUT_ENTRIES, *(list(column) for column in zip(*rows, strict=True)))
    for queue_id in sorted({line.queue_id for line in lines}):
        old, new = before.get(queue_id, {}), after[queue_id]
        await _put_accounts(connection, queue_id, touched(old, new))
        if _volumes(new) > _volumes(old):
            await connection.execute(PUT_STATEMENT, queue_id, lines[-1].number, statement(new))


async def write_apart(connection: Connection, queue_id: str, entries: Sequence[Entry]) -> int:
    """Write entries outside a decision; answers the number of the last."""
    number = await lock_dispatcher(connection)
    lines = [Line(place, queue_id, entry) for place, entry in enumerate(entries, start=number + 1)]
    books = await books_of(connection, queue_id)
    await write(connection, lines, {queue_id: books}, {queue_id: folded(books, entries)})
    await count_up(connection, number + len(lines))
    return number + len(lines)


async def paid_in(connection: Connection, assignment_id: AssignmentId) -> tuple[str, RepId] | None:
    """The queue in which a lead was paid for, and by whom; None when it was not by turns."""
    row = await connection.fetchrow(PAID_IN, assignment_id)
    return None if row is None else (row["queue_id"], row["rep_id"])


async def books_before(connection: Connection, number: int) -> dict[str, dict[RepId, Account]]:
    """The books of every queue as the decision of this number found them."""
    told = {row["queue_id"]: row for row in await connection.fetch(STATEMENTS_BEFORE, number)}
    books: dict[str, dict[RepId, Account]] = {}
    for row in await connection.fetch(QUEUES):
        queue_id = row["queue_id"]
        start = told.get(queue_id)
        begin = {} if start is None else read_statement(start["books"])
        rows = await connection.fetch(ENTRIES_BETWEEN, queue_id, 0 if start is None else start["number"], number)
        books[queue_id] = folded(begin, (_line(row).entry for row in rows))
    return {queue_id: accounts for queue_id, accounts in books.items() if accounts}


async def lines_before(
    connection: Connection, queue_id: str, number: int, rep_id: str | None, limit: int
) -> list[Line]:
    """Entries of a queue, of one rep or all, before a place; the newest first."""
    return [_line(row) for row in await connection.fetch(ENTRIES_OF, queue_id, number, rep_id, limit)]


async def audit(connection: Connection, actor: str, queue_id: str, detail: Mapping[str, Any]) -> None:
    """That somebody changed the books by hand."""
    await connection.execute(AUDIT, actor, "fairness.adjusted", queue_id, dict(detail))


def statement(books: Books) -> dict[str, Any]:
    """All accounts of a queue, as they are kept."""
    return orjson.loads(orjson.dumps({rep_id: account._asdict() for rep_id, account in books.items()}))  # type: ignore[no-any-return]


def read_statement(kept: Mapping[str, Any]) -> dict[RepId, Account]:
    """Accounts from a statement."""
    return {
        RepId(rep_id): Account(**{**account, "since": datetime.fromisoformat(account["since"])})
        for rep_id, account in kept.items()
    }


def _volumes(books: Books) -> int:
    return sum(account.entries for account in books.values()) // (STATEMENT_EVERY * max(len(books), 1))


async def _put_accounts(connection: Connection, queue_id: str, accounts: Books) -> None:
    rows = [
        (
            queue_id,
            rep_id,
            account.since,
            account.balance,
            account.received,
            account.entries,
            account.weight,
            account.away,
        )
        for rep_id, account in sorted(accounts.items())
    ]
    await connection.execute(PUT_ACCOUNTS, *(list(column) for column in zip(*rows, strict=True)))


def _books(rows: Sequence[asyncpg.Record]) -> dict[str, dict[RepId, Account]]:
    books: dict[str, dict[RepId, Account]] = defaultdict(dict)
    for row in rows:
        queue_id, rep_id, *account = row
        books[queue_id][rep_id] = Account(*account)
    return dict(books)


def _hash(weights: Weights) -> str | None:
    return hashlib.sha256(orjson.dumps(weights)).hexdigest() if weights else None


def _columns(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.kind,
        entry.rep_id,
        entry.at,
        entry.units,
        entry.why,
        entry.weight,
        _hash(entry.weights),
        entry.level,
        entry.by_weight,
        entry.assignment_id,
        entry.lead_id,
        entry.actor,
    )


def _line(row: asyncpg.Record) -> Line:
    entry = Entry(
        kind=row["kind"],
        rep_id=row["rep_id"],
        at=row["at"],
        units=row["units"],
        why=row["why"],
        weight=row["weight"],
        weights=tuple((RepId(rep_id), weight) for rep_id, weight in row["weights"] or ()),
        level=row["level"],
        by_weight=row["by_weight"],
        assignment_id=row["assignment_id"],
        lead_id=row["lead_id"],
        actor=row["actor"],
    )
    return Line(row["number"], row["queue_id"], entry)
