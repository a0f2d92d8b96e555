"""What a broadcast would do if it left now: who would get it, and who is held back and why. A job in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from services.nurture.broadcasts import queries
from services.nurture.broadcasts.audience import next_piece
from services.nurture.broadcasts.checks import address_of, domain_share, in_turn, still_wanted
from services.nurture.broadcasts.document import STEP
from services.nurture.broadcasts.domain import SAME_ADDRESS, kind_of, run_of
from services.nurture.broadcasts.queries import Broadcast
from services.nurture.broadcasts.trying import queries as trying
from services.nurture.broadcasts.trying.queries import DryRun
from services.nurture.channels.limits import domain_limit
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person, why_not
from services.nurture.sending.checks import CHECKS, Looked, Question
from services.nurture.sending.domain import Hold
from services.nurture.sending.looking import Lookout
from services.nurture.sending.queries import database_now
from services.nurture.sequences.domain import Plan, SendStep, compile_plan
from services.nurture.sequences.moments import moment_of
from services.nurture.sequences.steps import WaitUntilStep
from shared.db import Connection
from shared.ids import LeadId

Verdict = Literal["refused", "delayed"]
EXAMPLES = 5
MOST_REASONS = 100
OTHERS = "other reasons"
OPENED_AT_ONCE = 250
# As at the claim, when all is asked; but for turns and shares of a minute, which are taken by whoever asks.
_ASKED = tuple(check for check in CHECKS if check not in (still_wanted, in_turn, domain_limit, domain_share))


@dataclass(slots=True)
class Tally:
    """Counts of those who are held back, each with some examples."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, verdict: Verdict, reason: str, lead_id: LeadId) -> None:
        """Count one more."""
        kind = kind_of(reason)
        row = self._row(verdict, kind)
        if row is None and len(self.rows) >= MOST_REASONS:
            kind = OTHERS
            row = self._row(verdict, kind)
        if row is None:
            row = {"verdict": verdict, "reason": kind, "people": 0, "examples": []}
            self.rows.append(row)
        row["people"] += 1
        if len(row["examples"]) < EXAMPLES:
            row["examples"].append({"lead_id": lead_id, "reason": reason})

    def _row(self, verdict: Verdict, kind: str) -> dict[str, Any] | None:
        return next((row for row in self.rows if (row["verdict"], row["reason"]) == (verdict, kind)), None)


async def begin(connection: Connection, broadcast: Broadcast) -> DryRun:
    """A new dry run of a broadcast, instead of the one before."""
    before = await trying.dry_run_of(connection, broadcast.broadcast_id)
    while before is not None and await queries.drop_list(connection, before.dry_run_id):
        pass
    return await trying.begin(connection, broadcast.broadcast_id)


async def go_on(parts: Parts, broadcast_id: str) -> bool:
    """Carry out a piece of a dry run; False when it is over or somebody else is at it."""
    async with parts.runtime.database.transaction() as tx:
        dry_run = await trying.lock(tx.connection, broadcast_id)
        broadcast = await queries.broadcast_of(tx.connection, broadcast_id)
        if dry_run is None or broadcast is None:
            return False
        if dry_run.listed:
            if await queries.drop_list(tx.connection, dry_run.dry_run_id):
                return True
            await trying.finish(tx.connection, broadcast_id)
            return False
        await _look_at_piece(tx.connection, parts, broadcast, dry_run)
        return True


async def run(parts: Parts) -> timedelta | None:
    """Carry out all dry runs that are under way."""
    async with parts.runtime.database.reading() as connection:
        waiting = await trying.to_do(connection)
    for broadcast_id in waiting:
        while await go_on(parts, broadcast_id):
            pass
    return None


async def _look_at_piece(connection: Connection, parts: Parts, broadcast: Broadcast, dry_run: DryRun) -> None:
    piece = await next_piece(connection, parts, broadcast.document.audience, dry_run.listed_to)
    fresh = await queries.add_members(connection, dry_run.dry_run_id, piece.persons)
    plan = compile_plan(broadcast.broadcast_id, 1, broadcast.document.as_sequence())
    tally = Tally(dry_run.held_back)
    passing: list[tuple[LeadId, str | None]] = []
    for start in range(0, len(fresh), OPENED_AT_ONCE):
        passing += [
            (person.person_id, address_of(person, broadcast.document.message.channel))
            for person in await _look_at(connection, parts, plan, fresh[start : start + OPENED_AT_ONCE], tally)
        ]
    got = await _first_at_address(connection, parts, dry_run.dry_run_id, passing)
    for person_id, address in passing:
        if address is not None and person_id not in got:
            tally.add("refused", SAME_ADDRESS, person_id)
    would_get = sum(address is None or person_id in got for person_id, address in passing)
    await trying.advance(
        connection, broadcast.broadcast_id, piece.to, len(fresh), would_get, tally.rows, all_of_them=piece.last
    )


async def _look_at(
    connection: Connection, parts: Parts, plan: Plan, some: Sequence[LeadId], tally: Tally
) -> list[Person]:
    """Of some people those who would get it now; those it would delay are counted as held back, with the reason."""
    known = await people.load_persons(connection, parts.addresses, parts.runtime.keys, some)
    families = await people.load_families(connection, some)
    now = await database_now(connection)
    step, waits = plan.steps[STEP], plan.steps[plan.first]
    assert isinstance(step, SendStep)
    allowed: list[Question] = []
    looked = Looked(families)
    for person in (known[person_id] for person_id in some):
        refusal = why_not(person, plan.purpose, step.channel)
        if refusal is not None:
            tally.add("refused", refusal, person.person_id)
            continue
        then = now
        if isinstance(waits, WaitUntilStep):
            then, looked = moment_of(waits, person.fields, now) or now, Looked(families)  # each has their own time
        run_then = run_of(plan.sequence_id, plan.version, person.person_id, then, then)
        family = families[person.person_id]
        allowed.append(
            Question(connection, parts, plan, run_then, step, person, family, then, claiming=True, looked=looked)
        )
    together = [[each] for each in allowed] if isinstance(waits, WaitUntilStep) else [allowed]
    passing = []
    for questions in together:
        said = await Lookout(parts, frozenset(), _ASKED).asked(questions)
        for question, (*_, (_, objection)) in zip(questions, said, strict=True):
            if objection is None:
                passing.append(question.person)
            else:
                verdict: Verdict = "delayed" if isinstance(objection, Hold) else "refused"
                tally.add(verdict, objection.reason, question.person.person_id)
    return passing


async def _first_at_address(
    connection: Connection, parts: Parts, dry_run_id: str, passing: Sequence[tuple[LeadId, str | None]]
) -> set[str]:
    """Of those who would get it the ones that nobody with the same address comes before."""
    addressed = [(parts.addresses.hash_of(address), lead_id) for lead_id, address in passing if address is not None]
    hashes, lead_ids = [one[0] for one in addressed], [one[1] for one in addressed]
    return await trying.first_at_address(connection, dry_run_id, hashes, lead_ids)
