"""Gives leads to reps: one at a time, over all processes, under a row lock."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.routing.assignments import queries
from services.routing.assignments.domain import (
    MOST_OFFERS,
    Assignment,
    Case,
    Choice,
    Nobody,
    Pool,
    Trial,
    choose,
)
from services.routing.assignments.facts import assignment_id_of, lead_assigned
from services.routing.assignments.queries import Hold, Situation
from services.routing.people.domain import Person
from services.routing.reps.queries import active_reps
from services.routing.rules.domain import Rules
from shared.db import Tx
from shared.ids import EventId, LeadId
from shared.telemetry import counter, log

ASSIGNED = counter(
    "throughline_routing_assignments_total", "Leads given to reps: is routing alive, by what", ["strategy"]
)
HELD = counter("throughline_routing_held_total", "Leads that no rep could be found for: somebody must act", ["why"])
RETRY_FIRST = timedelta(minutes=1)
RETRY_DOUBLINGS = 4


class Dispatcher:
    """The decisions of one transaction: it holds the lock, and the pool as each decision leaves it."""

    def __init__(self, tx: Tx, rules: Rules, pool: Pool, at: datetime) -> None:
        self.tx = tx
        self.rules = rules
        self.pool = pool
        self.at = at

    @classmethod
    async def open(cls, tx: Tx, rules: Rules, at: datetime) -> "Dispatcher":
        """Wait for the turn, then look at the pool: what others decided before is committed by then."""
        await queries.lock_dispatcher(tx.connection)
        reps = await active_reps(tx.connection)
        return cls(tx, rules, Pool(reps, await queries.all_credits(tx.connection)), at)

    def routes(self, person: Person) -> bool:
        """Whether leads like this one are given to reps now."""
        values = {"lead": {}, **person.values(), "now": self.at}
        return not person.erased and self.rules.route_when.holds(values)[0]

    async def situation(self, person: Person, entry_id: EventId | None) -> Situation:
        """What was decided about the person before."""
        return await queries.situation(self.tx.connection, person.person_id, person.company, entry_id)

    async def place(  # noqa: PLR0913  # what a decision depends on
        self,
        person: Person,
        situation: Situation,
        cause_id: EventId,
        entry_id: EventId,
        *,
        attempts: int = 0,
        told_before: Sequence[Trial] = (),
    ) -> Assignment | None:
        """Give a lead to the rep that the rules choose, or hold it."""
        decision = choose(self.case(person, situation), self.rules, self.pool)
        if isinstance(decision, Nobody):
            await self._hold_for_nobody(person, cause_id, entry_id, decision, attempts)
            return None
        trace = (*told_before, *decision.trace)
        return await self.assign(person, situation, decision, cause_id, entry_id, trace=trace)

    async def assign(  # noqa: PLR0913  # what an assignment is made of
        self,
        person: Person,
        situation: Situation,
        choice: Choice,
        cause_id: EventId,
        entry_id: EventId,
        *,
        trace: Sequence[Trial] = (),
        reason: str | None = None,
        instead: str = "came back",
    ) -> Assignment:
        """Make the chosen rep responsible; the assignment before ends, `instead` saying why."""
        connection = self.tx.connection
        if situation.current is not None:
            await queries.end(connection, situation.current.assignment_id, self.at, instead)
        assignment = Assignment(
            assignment_id=assignment_id_of(cause_id),
            lead_id=person.person_id,
            person_id=person.person_id,
            revision=situation.revision + 1,
            rep_id=choice.rep.rep_id,
            queue=choice.queue,
            strategy=choice.strategy,
            state="offered",
            assigned_at=self.at,
            due_at=choice.due_at(self.at),
            touch_due_at=choice.touch_due_at(self.at),
            rules_version=self.rules.version,
            trace=[trial.as_json() for trial in trace or choice.trace],
            cause_id=cause_id,
            entry_id=entry_id,
            reason=reason,
            inputs={**person.values(), "now": self.at.isoformat()},
            company=person.company,
        )
        await queries.insert(connection, assignment)
        if choice.credits:
            await queries.put_credits(connection, choice.queue, choice.credits)
        await queries.drop_holds(connection, [person.person_id])
        self.pool = self.pool.after(choice, self.at)
        self.tx.emit(lead_assigned(assignment))
        ASSIGNED.labels(choice.strategy).inc()
        return assignment

    async def offer_to_next(self, refused: Assignment, person: Person, cause_id: EventId) -> Assignment | None:
        """After a rep passed a lead by: the next rep, unless so many passed it by that a person has to look at it."""
        if not self.routes(person):
            return None
        entry_id = refused.entry_id or cause_id
        situation = await self.situation(person, entry_id)
        if situation.current is not None:
            return None
        if situation.offers >= MOST_OFFERS:
            reason = f"{situation.offers} reps passed it by; give it to somebody by hand"
            await self.hold(person.person_id, cause_id, entry_id, reason, "passed_by")
            return None
        return await self.place(person, situation, cause_id, entry_id)

    async def hold(  # noqa: PLR0913  # what a hold is made of
        self,
        person_id: LeadId,
        cause_id: EventId,
        entry_id: EventId,
        reason: str,
        why: str,
        *,
        trace: Sequence[Trial] = (),
        awaits: int | None = None,
        retry_at: datetime | None = None,
    ) -> None:
        """Keep a lead on the list of those that wait. Without `retry_at` only a change of reps or rules moves it."""
        HELD.labels(why).inc()
        log.warning("lead_held", lead_id=person_id, why=why)
        steps = [trial.as_json() for trial in trace]
        await queries.put_hold(
            self.tx.connection,
            Hold(
                person_id=person_id,
                lead_id=person_id,
                cause_id=cause_id,
                entry_id=entry_id,
                reason=reason,
                trace=steps,
                rules_version=self.rules.version,
                awaits=awaits,
                since=self.at,
                retry_at=retry_at,
            ),
        )

    def case(self, person: Person, situation: Situation) -> Case:
        """The decision to take."""
        return Case(
            inputs=person.values(),
            at=self.at,
            previous_owner=situation.previous_owner,
            account_owner=situation.account_owner,
            passed_by=situation.passed_by,
        )

    async def _hold_for_nobody(
        self, person: Person, cause_id: EventId, entry_id: EventId, nobody: Nobody, attempts: int
    ) -> None:
        retry_at = self.at + RETRY_FIRST * 2 ** min(attempts, RETRY_DOUBLINGS)
        if nobody.retry_at is not None:
            retry_at = min(retry_at, nobody.retry_at)
        await self.hold(
            person.person_id, cause_id, entry_id, nobody.reason, "nobody", trace=nobody.trace, retry_at=retry_at
        )
