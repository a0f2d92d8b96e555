"""The statements about totals that are kept, since they take longer to compute than a request may."""

from collections.abc import Collection
from dataclasses import astuple, dataclass
from datetime import datetime

from services.attribution.paths.domain import Amount
from services.attribution.standing.domain import JOURNEYS, Until
from services.attribution.totals.domain import Credit
from shared.db import Connection

# What the sums have not moved since is as new as they are.
STORED = """
SELECT as_of, result, moves <> coalesce((SELECT moves FROM path_moves WHERE projection = current_schema()), 0) AS behind
FROM channel_totals WHERE projection = current_schema() AND model = $1 AND currency = $2
"""
# Of two that computed at once the one that saw more stays.
STORE = """
INSERT INTO channel_totals AS known VALUES (current_schema(), $1, $2, $3, $4, $5)
ON CONFLICT (projection, model, currency) DO UPDATE
SET moves = excluded.moves, as_of = excluded.as_of, result = excluded.result WHERE known.moves <= excluded.moves
"""
KNOWN = "SELECT model, currency, moves FROM channel_totals WHERE projection = current_schema()"
DROP = """
DELETE FROM channel_totals WHERE projection = current_schema()
    AND (model, currency) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
MOVES = "SELECT moves FROM path_moves WHERE projection = current_schema()"
CHANNELS = """
SELECT count(DISTINCT keys[cardinality(keys)]) FROM path_sums
WHERE subject = 'step' AND level = 'all' AND currency IN ($1, '')
"""
CURRENCIES = "SELECT DISTINCT currency FROM path_sums WHERE subject = 'length' AND level = 'all'"

Name = tuple[str, str]
"""Of a model and a currency."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What channels earned in one currency, and what nobody did: the conversions that no touch led to."""

    credits: list[Credit]
    unattributed: Amount
    as_of: datetime | None
    is_behind: bool = False

    @property
    def until(self) -> Until:
        """Until when all that was told is in it: what was read, or what was when the sums had not moved yet."""
        return Until(known=frozenset({self.as_of})) if self.is_behind else JOURNEYS


async def stored(connection: Connection, model: str, currency: str) -> Totals | None:
    """The totals over all time that are kept for a model."""
    row = await connection.fetchrow(STORED, model, currency)
    if row is None:
        return None
    result = row["result"]
    return Totals(
        [Credit(*one) for one in result["credits"]], Amount(*result["unattributed"]), row["as_of"], row["behind"]
    )


async def store(connection: Connection, name: Name, moves: int, totals: Totals) -> None:
    """Keep totals, computed from the sums after so many moves."""
    result = {"credits": [astuple(one) for one in totals.credits], "unattributed": tuple(totals.unattributed)}
    await connection.execute(STORE, *name, moves, totals.as_of, result)


async def known(connection: Connection) -> dict[Name, int]:
    """The totals that are kept, and from the sums after how many moves they are."""
    return {(row["model"], row["currency"]): row["moves"] for row in await connection.fetch(KNOWN)}


async def drop(connection: Connection, names: Collection[Name]) -> None:
    """Keep these totals no longer."""
    await connection.execute(DROP, [model for model, _ in names], [currency for _, currency in names])


async def moves(connection: Connection) -> int:
    """How often the sums moved so far."""
    return int(await connection.fetchval(MOVES) or 0)


async def channels(connection: Connection, currency: str) -> int:
    """How many channels play a part in the totals of a currency."""
    return int(await connection.fetchval(CHANNELS, currency))


async def currencies(connection: Connection) -> list[str]:
    """The currencies of all conversions."""
    return [row["currency"] for row in await connection.fetch(CURRENCIES)]
