"""The rows of persons under other rules, beside those that serve: made, kept up with the facts, and put in their place.

Rows of a version lie in a schema of their own, in tables that look like those of the projection, so that the same code
folds facts into either: it only looks for them elsewhere. A switch moves tables from one schema to another.

Whoever folds holds `FOLDING` shared, whoever starts, switches or drops rows holds it alone: so no transaction folds a
fact by what it knew before the change and commits after it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from services.scoring.parts import Parts
from services.scoring.rules.document import RuleSet
from shared.db import Connection, Tx
from shared.ids import LeadId

T = TypeVar("T")
State = Literal["filling", "ready", "kept"]
TABLES = ("scores", "limited_days")
"""What a person's row is made of. Each begins with the column `person_id`."""
FOLD = "SELECT pg_advisory_xact_lock_shared(hashtextextended('scoring/rows', 0))"
ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('scoring/rows', 0))"
# What was made for another projection, or looks as the tables did before a migration, follows the facts no more.
FOLLOWING = """
SELECT version, current_setting('search_path') AS path FROM beside
WHERE projection = (SELECT version FROM projections) AND revision = (SELECT version_num FROM alembic_version)
ORDER BY version
"""
LOOK_IN = "SELECT set_config('search_path', $1, true)"
SERVING = "SELECT version FROM serving_rules"
SERVE_FIRST = """
INSERT INTO serving_rules (version) SELECT coalesce((SELECT version FROM scoring_projection.serving_rules), $1)
ON CONFLICT DO NOTHING
"""
ALL = """
SELECT version, state, reached, filled, began_at, changed_at, clock_timestamp() - changed_at AS age,
    projection = (SELECT version FROM projections) AND revision = (SELECT version_num FROM alembic_version)
    AND to_regclass('scoring_v' || version || '.scores') IS NOT NULL AS follows
FROM beside ORDER BY version
"""
BEGIN = """
INSERT INTO beside (version, state, projection, revision)
SELECT $1, $2, projections.version, version_num FROM projections, alembic_version
"""
END = "DELETE FROM beside WHERE version = $1"
HOLD = "SELECT reached FROM beside WHERE version = $1 AND state = 'filling' FOR UPDATE"
NEXT_PERSONS = "SELECT person_id FROM scoring_projection.scores WHERE person_id > $1 ORDER BY person_id LIMIT $2"
REACH = """
UPDATE beside SET reached = $2, filled = filled + $3, changed_at = clock_timestamp(),
    state = CASE WHEN $4 THEN 'ready' ELSE state END
WHERE version = $1
"""
DROP_SCHEMA = "DROP SCHEMA IF EXISTS {schema} CASCADE"
CREATE_SCHEMA = "CREATE SCHEMA {schema}"
CREATE_TABLE = """
CREATE TABLE {schema}.{table} (LIKE scoring_projection.{table} INCLUDING ALL) WITH (fillfactor = 70)
"""
TAKE_PLACE = """
ALTER TABLE scoring_projection.{table} SET SCHEMA {old};
ALTER TABLE {schema}.{table} SET SCHEMA scoring_projection
"""
SERVE = "UPDATE serving_rules SET version = $1"


@dataclass(frozen=True, slots=True)
class Beside:
    """Rows of a version; `age` is since they changed. `follows` is false for those that no longer get the facts."""

    version: int
    state: State
    reached: str
    filled: int
    began_at: datetime
    changed_at: datetime
    age: timedelta
    follows: bool

    @property
    def rate(self) -> float | None:
        """Persons a second since it began, once that says something."""
        seconds = (self.changed_at - self.began_at) / timedelta(seconds=1)
        return self.filled / seconds if self.filled and seconds > 0 else None


async def rules_of_rows(connection: Connection, parts: Parts) -> RuleSet:
    """The rules that the rows at hand are made under."""
    version = parts.beside if parts.beside is not None else await serving_version(connection, parts)
    return await parts.rules.at_version(connection, version)


async def serving_version(connection: Connection, parts: Parts) -> int:
    """The version of the rules that the serving rows are made under; of a first installation, or a rebuild, settled."""
    version: int | None = await connection.fetchval(SERVING)
    if version is None:
        active = await parts.rules.store.active_version(connection)
        await connection.execute(SERVE_FIRST, active or 0)
        version = await connection.fetchval(SERVING)
    return version or 0


async def everywhere(tx: Tx, parts: Parts, fold: Callable[[Parts], Awaitable[T]]) -> T:
    """Fold facts into the rows that serve, and into those beside them. Answers what came of the first.

    A rebuild has nothing beside. If a fold fails, its savepoint takes the change of place back too.
    """
    if not parts.decides:
        return await fold(parts)
    following = await _following(tx)
    result = await fold(parts)
    for version, path in following.items():
        await look_in(tx.connection, version)
        await fold(replace(parts, beside=version))
        await tx.connection.execute(LOOK_IN, path)
    return result


async def _following(tx: Tx) -> dict[int, str]:
    """Versions whose rows follow the facts, and where to look again after each; they stay so while `FOLD` is held."""
    if "following" not in tx.memory:
        await tx.connection.execute(FOLD)
        rows = await tx.connection.fetch(FOLLOWING)
        tx.memory["following"] = {row["version"]: row["path"] for row in rows}
    return tx.memory["following"]


async def look_in(connection: Connection, version: int) -> None:
    """From here on, until the transaction ends, the rows at hand are those of a version."""
    await connection.execute(LOOK_IN, f"{schema(version)},scoring_projection,scoring")


async def everything_beside(connection: Connection) -> list[Beside]:
    """Everything that lies beside."""
    return [Beside(**dict(row)) for row in await connection.fetch(ALL)]


async def begin(connection: Connection, version: int, state: State = "filling") -> None:
    """Make empty tables for a version's rows; call it alone (`ALONE`)."""
    await connection.execute(DROP_SCHEMA.format(schema=schema(version)))
    await connection.execute(CREATE_SCHEMA.format(schema=schema(version)))
    if state == "filling":
        for table in TABLES:
            await connection.execute(CREATE_TABLE.format(schema=schema(version), table=table))
    await connection.execute(END, version)
    await connection.execute(BEGIN, version, state)


async def drop(connection: Connection, version: int) -> None:
    """Forget the rows of a version; call it alone."""
    await connection.execute(DROP_SCHEMA.format(schema=schema(version)))
    await connection.execute(END, version)


async def put_in_place(connection: Connection, version: int, serving: int) -> None:
    """Let the rows of a version serve, and keep those that did; call it alone."""
    old = f"{schema(version)}_before" if version == serving else schema(serving)
    if version == serving:
        await connection.execute(CREATE_SCHEMA.format(schema=old))
    else:
        await begin(connection, serving, "kept")
    for table in TABLES:
        await connection.execute(TAKE_PLACE.format(schema=schema(version), table=table, old=old))
    if version == serving:
        await connection.execute(DROP_SCHEMA.format(schema=old))
    await drop(connection, version)
    await connection.execute(SERVE, version)


async def hold(connection: Connection, version: int) -> str | None:
    """How far the rows of a version are filled, if they still are; nobody else fills them before this commits."""
    reached: str | None = await connection.fetchval(HOLD, version)
    return reached


async def persons_after(connection: Connection, reached: str, limit: int) -> Sequence[LeadId]:
    """Persons that serve, in the order of their ids."""
    return [LeadId(row["person_id"]) for row in await connection.fetch(NEXT_PERSONS, reached, limit)]


async def reach(connection: Connection, version: int, reached: str, filled: int, *, ready: bool) -> None:
    """So many more persons are filled, up to one."""
    await connection.execute(REACH, version, reached, filled, ready)


def schema(version: int) -> str:
    """Where the rows of a version lie."""
    return f"scoring_v{version:d}"
