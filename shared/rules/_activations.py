"""Which version counted when, who decided it and why; what is planned, called off, and what a rollback goes back to."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import asyncpg

from shared.db import Connection
from shared.errors import Conflict, FieldError, Invalid, NotFound

State = Literal["planned", "active", "past", "cancelled"]
_ETAG = re.compile(r'(?:W/)?"?([1-9][0-9]{0,9})"?')
_COLUMNS = "sequence, version, author, effective_at, decided_at, reason, announce"
ACTIVATIONS = f"""
WITH latest AS (
    SELECT sequence FROM rule_activations
    WHERE kind = $1 AND name = $2 AND effective_at <= clock_timestamp()
    ORDER BY effective_at DESC, sequence DESC LIMIT 1
), every AS (
    SELECT {_COLUMNS}, rollback, NULL::text AS cancelled_by, NULL::timestamptz AS cancelled_at,
        CASE WHEN effective_at > clock_timestamp() THEN 'planned'
             WHEN sequence = (SELECT sequence FROM latest) THEN 'active' ELSE 'past' END AS state
    FROM rule_activations WHERE kind = $1 AND name = $2
    UNION ALL
    SELECT {_COLUMNS}, false, cancelled_by, cancelled_at, 'cancelled'
    FROM rule_cancellations WHERE kind = $1 AND name = $2
)
SELECT * FROM every WHERE sequence < $3 AND ($4::text IS NULL OR state = $4) ORDER BY sequence DESC LIMIT $5
"""
CALL_OFF = f"""
WITH planned AS (
    DELETE FROM rule_activations
    WHERE kind = $1 AND name = $2 AND sequence = $3 AND effective_at > clock_timestamp()
    RETURNING kind, name, {_COLUMNS}
)
INSERT INTO rule_cancellations (kind, name, {_COLUMNS}, cancelled_by) SELECT *, $4 FROM planned RETURNING sequence
"""
STEPS = """
SELECT version, rollback FROM rule_activations
WHERE kind = $1 AND name = $2 AND effective_at <= clock_timestamp() ORDER BY effective_at, sequence
"""


class NoSuchActivation(NotFound):
    """The document has no such activation."""

    slug = "rules/no-such-activation"
    title = "There is no such activation"


class AlreadyActivated(Conflict):
    """An activation whose time has come can no longer be called off."""

    slug = "rules/already-activated"
    title = "The activation's time has come"


class NothingBefore(Conflict):
    """No other version counted before the one that counts now."""

    slug = "rules/nothing-before"
    title = "There is nothing to roll back to"


class ChangedMeanwhile(Conflict):
    """Another version counts than the one that the request was made from; `errors` name what it changed."""

    slug = "rules/changed-meanwhile"
    title = "The rules were changed meanwhile"


@dataclass(frozen=True, slots=True)
class Activation:
    """A version counts from `effective_at` on. `sequence` names it; decisions before this was kept have no time."""

    sequence: int
    version: int
    state: State
    author: str
    effective_at: datetime
    decided_at: datetime | None
    reason: str
    announce: bool
    rollback: bool
    cancelled_by: str | None
    cancelled_at: datetime | None


async def activations(  # noqa: PLR0913  # which document, and which page of it
    connection: Connection, kind: str, name: str, *, before: int, limit: int, state: State | None = None
) -> list[Activation]:
    """Activations before one, the one decided last first; `state` asks for those that stand so at present."""
    rows = await connection.fetch(ACTIVATIONS, kind, name, before, state, limit)
    return [_activation(row) for row in rows]


async def call_off(connection: Connection, kind: str, name: str, sequence: int, author: str) -> Activation:
    """Take back what is planned; again changes nothing. Raises NoSuchActivation and AlreadyActivated."""
    await connection.execute(CALL_OFF, kind, name, sequence, author)
    found = await activations(connection, kind, name, before=sequence + 1, limit=1)
    if not found or found[0].sequence != sequence:
        raise NoSuchActivation(f"there is no activation {sequence}")
    if found[0].state != "cancelled":
        raise AlreadyActivated(f"activation {sequence} took effect; activate another version, or roll back")
    return found[0]


async def version_before(connection: Connection, kind: str, name: str) -> int:
    """The version that a rollback goes back to. Raises NothingBefore."""
    rows = await connection.fetch(STEPS, kind, name)
    before = before_last([(row["version"], row["rollback"]) for row in rows])
    if before is None:
        raise NothingBefore("no other version counted before; activate one by its number")
    return before


def before_last(steps: Iterable[tuple[int, bool]]) -> int | None:
    """The version under the last one. A rollback takes off what stood above, so that two in a row go back two."""
    standing: list[int] = []
    for version, rollback in steps:
        if rollback and version in standing:
            while standing[-1] != version:
                standing.pop()
        elif not standing or standing[-1] != version:
            standing.append(version)
    return standing[-2] if len(standing) > 1 else None


def expected_version(if_match: str | None) -> int | None:
    """The version that an `If-Match` header names; None for none and for `*`. Raises Invalid."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None or int(found[1]) >= 2**31:
        fault = FieldError("header:If-Match", 'is not the ETag of a version, as in "7"')
        raise Invalid("look at header:If-Match", [fault])
    return int(found[1])


def changed_meanwhile(expected: int, active: int, author: str, at: datetime, changes: Sequence[FieldError]) -> Conflict:
    """The refusal of a change that was made from another version than the one that counts."""
    return ChangedMeanwhile(
        f"version {active} counts, saved by {author} at {at.isoformat()}; you started from version {expected}: "
        f'look at what changed, then send it again with If-Match: "{active}"',
        changes,
    )


def _activation(row: asyncpg.Record) -> Activation:
    return Activation(**{name: row[name] for name in Activation.__slots__})
