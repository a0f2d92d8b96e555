"""The statements about leads, identifiers, links and consent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import asyncpg
import orjson

from services.capture.leads.domain import FOUND, Identifier, Person, Statement, Statements
from shared.db import Connection, Tx
from shared.errors import Invalid
from shared.events import IdentifierKind
from shared.ids import LeadId
from shared.personal import PersonKeys

# OFFSET 0 keeps the planner, which cannot know how small these sets are, from reading the whole table instead.
OWNERS = """
WITH RECURSIVE up AS (
    SELECT own_id, lead_id AS here, 0 AS depth FROM identifiers WHERE own_id = ANY($1)
    UNION ALL
    SELECT up.own_id, leads.merged_into, depth + 1
    FROM up CROSS JOIN LATERAL (SELECT merged_into FROM leads WHERE lead_id = up.here OFFSET 0) AS leads
    WHERE leads.merged_into IS NOT NULL AND depth < 64
)
SELECT DISTINCT ON (own_id) own_id, here FROM up ORDER BY own_id, depth DESC
"""
ROOT = """
WITH RECURSIVE up AS (
    SELECT lead_id, merged_into, 0 AS depth FROM leads WHERE lead_id = $1
    UNION ALL
    SELECT leads.lead_id, leads.merged_into, depth + 1
    FROM up JOIN leads ON leads.lead_id = up.merged_into WHERE depth < 64
)
SELECT lead_id FROM up ORDER BY depth DESC LIMIT 1
"""
ATTACHED_TO = "SELECT lead_id FROM identifiers WHERE own_id = $1"
LOCK = "SELECT lead_id FROM leads WHERE lead_id = ANY($1) AND merged_into IS NULL ORDER BY lead_id FOR UPDATE"
FAMILIES = """
WITH RECURSIVE down AS (
    SELECT lead_id AS root, lead_id, 0 AS depth FROM leads WHERE lead_id = ANY($1)
    UNION ALL
    SELECT down.root, below.lead_id, depth + 1
    FROM down CROSS JOIN LATERAL (SELECT lead_id FROM leads WHERE merged_into = down.lead_id OFFSET 0) AS below
    WHERE depth < 64
)
SELECT down.root, leads.*, held.wrapped_key
FROM down CROSS JOIN LATERAL (SELECT * FROM leads WHERE lead_id = down.lead_id OFFSET 0) AS leads
LEFT JOIN LATERAL (SELECT wrapped_key FROM person_keys WHERE lead_id = down.lead_id OFFSET 0) AS held ON true
ORDER BY down.root, leads.lead_id
"""
EMAILS = "SELECT own_id, lead_id FROM identifiers WHERE lead_id = ANY($1) AND kind = 'email'"
IDENTIFIERS = "SELECT own_id, kind, lead_id FROM identifiers WHERE lead_id = ANY($1)"
SEPARATED = """
SELECT lead_id, other_id FROM separations WHERE lead_id = ANY($1) AND other_id = ANY($1)
"""
SEPARATE = "INSERT INTO separations (lead_id, other_id) VALUES (least($1, $2), greatest($1, $2)) ON CONFLICT DO NOTHING"
REUNITE = "DELETE FROM separations WHERE lead_id = ANY($1) AND other_id = ANY($1)"
ADD_LEAD = """
INSERT INTO leads (lead_id, made_from, origin, captured_at) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING lead_id
"""
ATTACH = """
INSERT INTO identifiers (own_id, kind, lead_id)
SELECT own_id, kind, $3 FROM unnest($1::text[], $2::text[]) AS new (own_id, kind) ORDER BY own_id
ON CONFLICT DO NOTHING RETURNING own_id
"""
ATTACHED = "SELECT own_id, lead_id FROM identifiers WHERE own_id = ANY($1)"
SAVE = """
UPDATE leads SET sealed = $2, statements = '{}', captured_at = $3, revision = $4, updated_at = clock_timestamp()
WHERE lead_id = $1
"""
RAISE = "UPDATE leads SET revision = revision + 1, updated_at = clock_timestamp() WHERE lead_id = ANY($1)"
RAISE_TO = "UPDATE leads SET revision = $2, updated_at = clock_timestamp() WHERE lead_id = $1"
MERGE = "UPDATE leads SET merged_into = $2, alias_at = $3, updated_at = clock_timestamp() WHERE lead_id = $1"
LINKS = "SELECT at, lead_id FROM links WHERE anonymous_id = $1"
LINK = "INSERT INTO links (anonymous_id, at, lead_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING lead_id"
KNOWN_AGAIN = """
SELECT own_id FROM identifiers WHERE own_id = ANY($1)
UNION SELECT lead_id FROM person_keys WHERE lead_id = ANY($1) AND destroyed_at IS NULL
"""
DESTROYED = "SELECT lead_id, destroyed_at FROM person_keys WHERE lead_id = ANY($1) AND destroyed_at IS NOT NULL"
NEWEST = """
SELECT lead_id, created_at FROM leads
WHERE merged_into IS NULL AND erased_at IS NULL AND revision > 0
  AND ($1::timestamptz IS NULL OR (created_at, lead_id) < ($1, $2))
ORDER BY created_at DESC, lead_id DESC LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class LeadRow:
    """A lead as it stands."""

    lead_id: LeadId
    made_from: IdentifierKind
    revision: int
    statements: Statements
    origin: str
    captured_at: datetime
    created_at: datetime
    updated_at: datetime
    merged_into: LeadId | None
    alias_at: datetime | None
    erased_at: datetime | None


@dataclass(frozen=True, slots=True)
class Family:
    """A person: the row of the lead that stands for them, and the rows of those merged into it, itself included."""

    root: LeadRow
    rows: tuple[LeadRow, ...]

    @property
    def members(self) -> frozenset[LeadId]:
        """The ids of all leads of the person."""
        return frozenset(row.lead_id for row in self.rows)


async def owners_of(connection: Connection, own_ids: Sequence[LeadId]) -> dict[LeadId, LeadId]:
    """The lead that stands for the owner of each known identifier."""
    rows = await connection.fetch(OWNERS, sorted(own_ids))
    return {LeadId(row["own_id"]): LeadId(row["here"]) for row in rows}


async def root_of(connection: Connection, lead_id: LeadId) -> LeadId | None:
    """The lead that stands for the person of a lead, or of an identifier by its own id; None if there is none."""
    root = await connection.fetchval(ROOT, lead_id)
    if root is None:
        attached = await connection.fetchval(ATTACHED_TO, lead_id)
        root = attached and await connection.fetchval(ROOT, attached)
    return LeadId(root) if root else None


async def lock_roots(connection: Connection, lead_ids: Sequence[LeadId]) -> set[LeadId]:
    """Lock leads in the order of their ids. Answers those that still stand for themselves."""
    return {LeadId(row["lead_id"]) for row in await connection.fetch(LOCK, sorted(set(lead_ids)))}


async def families_of(connection: Connection, keys: PersonKeys, roots: Sequence[LeadId]) -> dict[LeadId, Family]:
    """The persons that leads stand for. Raises KeysAwaited while, after a restore, their keys are still to be read."""
    rows: dict[LeadId, list[LeadRow]] = {}
    found = await connection.fetch(FAMILIES, sorted(set(roots)))
    if any(row["sealed"] and row["wrapped_key"] is None and row["erased_at"] is None for row in found):
        await keys.refuse_while_awaited(connection)
    for row in found:
        rows.setdefault(LeadId(row["root"]), []).append(_lead_row(row, keys))
    return {
        root: Family(next(row for row in members if row.lead_id == root), tuple(members))
        for root, members in rows.items()
    }


async def persons_of(connection: Connection, families: Mapping[LeadId, Family]) -> dict[LeadId, Person]:
    """The persons with what decides whether they are one."""
    lead_ids = sorted(lead_id for family in families.values() for lead_id in family.members)
    emails: dict[str, set[LeadId]] = {}
    for row in await connection.fetch(EMAILS, lead_ids):
        emails.setdefault(row["lead_id"], set()).add(LeadId(row["own_id"]))
    return {
        root: Person(
            root,
            family.root.made_from,
            family.members,
            frozenset(own_id for lead_id in family.members for own_id in emails.get(lead_id, ())),
        )
        for root, family in families.items()
    }


async def told_apart(connection: Connection, lead_ids: Sequence[LeadId]) -> frozenset[frozenset[LeadId]]:
    """Those pairs of these leads that somebody told apart."""
    rows = await connection.fetch(SEPARATED, lead_ids)
    return frozenset(frozenset((LeadId(row["lead_id"]), LeadId(row["other_id"]))) for row in rows)


async def tell_apart(connection: Connection, one: LeadId, other: LeadId) -> None:
    """Remember that two leads are not one person."""
    await connection.execute(SEPARATE, one, other)


async def reunite(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Forget that any of these leads were told apart."""
    await connection.execute(REUNITE, lead_ids)


async def add_lead(
    connection: Connection, lead_id: LeadId, made_from: IdentifierKind, origin: str, captured_at: datetime
) -> bool:
    """Add a lead, at revision 0 until something is saved. False if it was there; waits for one being added."""
    return await connection.fetchval(ADD_LEAD, lead_id, made_from, origin, captured_at) is not None


async def attach(connection: Connection, lead_id: LeadId, identifiers: Sequence[Identifier]) -> set[LeadId]:
    """Give a lead identifiers. Answers the own ids of those that nobody else got meanwhile."""
    if not identifiers:
        return set()
    own_ids = [identifier.own_id for identifier in identifiers]
    kinds = [identifier.kind for identifier in identifiers]
    return {LeadId(row["own_id"]) for row in await connection.fetch(ATTACH, own_ids, kinds, lead_id)}


async def attached_leads(connection: Connection, own_ids: Sequence[LeadId]) -> dict[LeadId, LeadId]:
    """The lead that each identifier was given to, before any merge."""
    rows = await connection.fetch(ATTACHED, own_ids)
    return {LeadId(row["own_id"]): LeadId(row["lead_id"]) for row in rows}


async def identifiers_of(connection: Connection, lead_ids: Sequence[LeadId]) -> dict[LeadId, list[Identifier]]:
    """The identifiers that were given to leads, before any merge."""
    held: dict[LeadId, list[Identifier]] = {}
    for row in await connection.fetch(IDENTIFIERS, lead_ids):
        held.setdefault(LeadId(row["lead_id"]), []).append(Identifier(row["kind"], LeadId(row["own_id"])))
    return held


async def save_lead(  # noqa: PLR0913  # a row
    tx: Tx,
    keys: PersonKeys,
    lead_id: LeadId,
    statements: Statements,
    captured_at: datetime,
    revision: int,
    at: datetime,
) -> None:
    """Save what was told about a lead; `at` as by `sealed`."""
    blocks = await sealed(tx, keys, {lead_id: statements}, at)
    await tx.connection.execute(SAVE, lead_id, blocks[lead_id], captured_at, revision)


async def raise_revision(connection: Connection, lead_id: LeadId, revision: int) -> None:
    """A locked lead of which nothing else was told is told anew."""
    await connection.execute(RAISE_TO, lead_id, revision)


async def raise_revisions(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Locked leads are told anew."""
    await connection.execute(RAISE, lead_ids)


async def set_parent(connection: Connection, lead_id: LeadId, into: LeadId | None, at: datetime) -> None:
    """Merge a lead into another, or into none."""
    await connection.execute(MERGE, lead_id, into, at)


async def links_of(connection: Connection, anonymous_id: LeadId) -> list[tuple[datetime, LeadId]]:
    """To whom a browser belonged, and from when."""
    return [(row["at"], LeadId(row["lead_id"])) for row in await connection.fetch(LINKS, anonymous_id)]


async def link(connection: Connection, anonymous_id: LeadId, at: datetime, lead_id: LeadId) -> bool:
    """Say that a browser belongs to a lead from a moment on. False if that was known."""
    return await connection.fetchval(LINK, anonymous_id, at, lead_id) is not None


async def destroyed_at(connection: Connection, own_ids: Sequence[LeadId]) -> dict[LeadId, datetime]:
    """When the persons behind ids were erased, of those who were."""
    rows = await connection.fetch(DESTROYED, own_ids)
    return {LeadId(row["lead_id"]): row["destroyed_at"] for row in rows}


async def known_again(connection: Connection, own_ids: Sequence[LeadId]) -> set[LeadId]:
    """Those of these ids under which somebody is known, by an identifier or by what they did."""
    return {LeadId(row["own_id"]) for row in await connection.fetch(KNOWN_AGAIN, own_ids)}


async def newest_leads(
    connection: Connection, after: tuple[datetime, str] | None, limit: int
) -> list[tuple[LeadId, datetime]]:
    """Leads that stand for persons, newest first, after a place in that list."""
    at, lead_id = after or (None, None)
    return [(LeadId(row["lead_id"]), row["created_at"]) for row in await connection.fetch(NEWEST, at, lead_id, limit)]


_moment = lru_cache(maxsize=1_000)(datetime.fromisoformat)  # most was told at one time


def _lead_row(row: asyncpg.Record, keys: PersonKeys) -> LeadRow:
    return LeadRow(
        lead_id=LeadId(row["lead_id"]),
        made_from=row["made_from"],
        revision=row["revision"],
        statements=_statements(row, keys),
        origin=row["origin"],
        captured_at=row["captured_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        merged_into=LeadId(row["merged_into"]) if row["merged_into"] else None,
        alias_at=row["alias_at"],
        erased_at=row["erased_at"],
    )


def _statements(row: asyncpg.Record, keys: PersonKeys) -> Statements:
    """What was told, opened; nothing of somebody whose key is gone."""
    told = row["statements"]  # in clear as an earlier version wrote it, until `seal_clear` comes by
    if row["sealed"] is not None:
        wrapped = row["wrapped_key"]
        told = orjson.loads(keys.open_with(LeadId(row["lead_id"]), wrapped, row["sealed"])) if wrapped else {}
    return {
        name: Statement(value, _moment(at), *(rest or [row["origin"]])) for name, (value, at, *rest) in told.items()
    }


async def sealed(tx: Tx, keys: PersonKeys, told: Mapping[LeadId, Statements], at: datetime) -> dict[LeadId, str | None]:
    """Statements as they stand in rows: sealed with the key of each person; None where nothing was told.

    `at` is when the keys that are made for it were made.
    """
    texts = {lead_id: _written(statements) for lead_id, statements in told.items() if statements}
    blocks = await keys.seal_texts(tx, texts, at) if texts else {}
    return {lead_id: blocks.get(lead_id) for lead_id in told}


def _written(statements: Statements) -> bytes:
    """Statements as JSON. Raises Invalid for text that PostgreSQL, which others keep it in, does not hold."""
    try:
        text = orjson.dumps(dumped(statements), default=str)
    except TypeError as exc:  # half of a surrogate pair, a number over 64 bits
        raise Invalid("holds a value that cannot be stored") from exc
    if b"\\u0000" in text.replace(b"\\\\", b""):
        raise Invalid("holds a value that cannot be stored: a NUL character")
    return text


def dumped(statements: Statements) -> dict[str, object]:
    """Statements as they stand in a row."""
    times: dict[datetime, str] = {}  # most were told at one time
    written: dict[str, object] = {}
    for name, (value, at, origin, *found) in statements.items():
        told_at = times.get(at) or times.setdefault(at, at.isoformat())
        written[name] = [value, told_at, origin, *(found if name.startswith(FOUND) else ())]
    return written
