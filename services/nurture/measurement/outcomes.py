"""Which messages replies and conversions followed, within the window that reports ask for when they do not say.

Counted in the background whenever something is told of somebody: what they had counted for is taken away, what counts
now is added, and the database counts both (migration 0020). A report heeds itself who is not looked at yet.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.nurture.measurement import queries
from services.nurture.measurement.domain import Happened, Outcome, Sent, counted, followed
from services.nurture.people.queries import load_families
from services.nurture.sequences.document import WINDOW_DAYS
from shared.db import Connection, Database
from shared.identity import resolve_many
from shared.ids import LeadId, SequenceId

WINDOW = timedelta(days=WINDOW_DAYS)
LATELY = 3 * WINDOW
A_ROUND = 500
AT_ONCE = 20
"""So many turns are looked at together; each is a batch of facts at most."""


async def count_outcomes(database: Database) -> timedelta | None:
    """Count anew for those of whom something was told; answers when to look again, at once while more is left."""
    async with database.transaction() as tx:
        taken = await queries.take_turns(tx.connection, AT_ONCE)
        if not taken:
            return None
        ids = sorted({LeadId(one) for turn in taken for one in turn})
        before, now, unsettled = await _compared(tx.connection, ids)
        await queries.move_outcomes(tx.connection, before - now, now - before)
        if unsettled:
            await queries.note(tx.connection, unsettled)
    return timedelta() if len(taken) == AT_ONCE else None


class Rounds:
    """Goes through everybody who did something lately, some at a time: whoever folded it may not have told so.

    So it was with an earlier version while this one was rolled out, and so it is when a projection is rebuilt.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = ""

    async def run(self) -> None:
        """Look at the next ones, from the beginning again after the last."""
        async with self._database.transaction() as tx:
            ids = await queries.active_after(tx.connection, self._after, LATELY, A_ROUND)
            await queries.note(tx.connection, ids)
        self._after = ids[-1] if len(ids) == A_ROUND else ""


async def not_counted_yet(
    connection: Connection, sequence_id: SequenceId, span: tuple[datetime, datetime]
) -> list[dict[str, Any]]:
    """What is to be added to the counts of a sequence and a period, or taken away, by what was just told: rows."""
    ids = await queries.waiting(connection)
    before, now, _ = await _compared(connection, ids) if ids else (set(), set(), ())
    changes = [*((one, -1) for one in before - now), *((one, 1) for one in now - before)]
    mine = [each for each in changes if each[0].sequence_id == sequence_id and span[0] <= each[0].at < span[1]]
    return [row for one, sign in mine for row in counted(one, sign)]


async def _compared(
    connection: Connection, ids: Sequence[LeadId]
) -> tuple[set[Outcome], set[Outcome], Sequence[LeadId]]:
    """What was counted for these people and what counts now; and who did something while a message was handed over."""
    persons = await resolve_many(connection, [(one, None) for one in ids])
    families = await load_families(connection, persons)
    reach = sorted({*ids, *(member.lead_id for family in families.values() for member in family)})
    facts = await _facts(connection, reach)
    messages, unsettled = await _messages(connection, {fact.person_id for fact in facts})
    before = await queries.outcomes_of(connection, reach, [fact.fact_id for fact in facts])
    waiting = [fact.lead_id for fact in facts if fact.person_id in unsettled]
    return before, followed(facts, messages, WINDOW), waiting


async def _facts(connection: Connection, ids: Sequence[LeadId]) -> list[Happened]:
    """Replies and conversions that came with these ids, each with whose it is."""
    rows = await queries.happened(connection, ids)
    owners = await resolve_many(connection, [(LeadId(row["lead_id"]), row["occurred_at"]) for row in rows])
    return [Happened(person_id=owner, **dict(row)) for row, owner in zip(rows, owners, strict=True)]


async def _messages(
    connection: Connection, persons: Iterable[LeadId]
) -> tuple[Mapping[LeadId, Sequence[Sent]], set[LeadId]]:
    """What left to these persons, and to whom something is being handed over."""
    families = await load_families(connection, persons)
    rows = await queries.sent_to(connection, {member.lead_id for family in families.values() for member in family})
    owners = await _persons_of(connection, rows)
    found: dict[LeadId, list[Sent]] = {}
    for row in rows:
        sent = Sent(row["sequence_id"], row["step_id"], row["variant"], row["claimed_at"])
        if not row["under_way"]:
            found.setdefault(owners[row["lead_id"]], []).append(sent)
    return found, {owners[row["lead_id"]] for row in rows if row["under_way"]}


async def _persons_of(connection: Connection, rows: Sequence[Any]) -> dict[str, LeadId]:
    ids = sorted({LeadId(row["lead_id"]) for row in rows})
    return dict(zip(ids, await resolve_many(connection, [(one, None) for one in ids]), strict=True))
