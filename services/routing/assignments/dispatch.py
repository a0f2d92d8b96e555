"""Gives leads to reps: one transaction at a time over all processes, under a row lock."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from fractions import Fraction

from services.routing.assignments import holds, inputs, queries
from services.routing.assignments.domain import MOST_OFFERS, Assignment, Case, Choice, Nobody, Pool, Trial, choose
from services.routing.assignments.facts import assignment_id_of, lead_assigned
from services.routing.assignments.holds import Hold
from services.routing.assignments.queries import Asked, Situation
from services.routing.people.domain import Person
from services.routing.reps.queries import active_reps
from services.routing.rules.domain import Rules
from shared.db import Tx
from shared.ids import EventId, LeadId, RepId
from shared.personal import PersonKeys
from shared.telemetry import counter, log

ASSIGNED = counter(
    "throughline_routing_assignments_total", "Leads given to reps: is routing alive, by what", ["strategy"]
)
HELD = counter("throughline_routing_held_total", "Leads that no rep could be found for: somebody must act", ["why"])
RETRY_FIRST = timedelta(minutes=1)
RETRY_DOUBLINGS = 4


class Dispatcher:
    """The decisions of one transaction. It holds the lock, the pool as each decision leaves it, and what to write."""

    def __init__(self, tx: Tx, rules: Rules, pool: Pool, keys: PersonKeys, at: datetime) -> None:
        self.tx = tx
        self.rules = rules
        self.pool = pool
        self.at = at
        self._keys = keys
        self._made: list[tuple[Assignment, Sequence[LeadId]]] = []
        self._holds: list[Hold] = []
        self._credits: dict[str, dict[RepId, Fraction]] = defaultdict(dict)
        self._account_owners: dict[str, RepId] = {}

    def routes(self, person: Person) -> bool:
        """Whether leads like this one are given to reps now."""
        values = {"lead": {}, **person.values(), "now": self.at}
        return not person.erased and self.rules.route_when.holds(values)[0]

    async def situation(self, person: Person, entry_id: EventId | None, cause_id: EventId | None = None) -> Situation:
        """What was decided about a person before."""
        return (await self.situations([(person, entry_id, cause_id)]))[0]

    async def situations(self, asked: Sequence[tuple[Person, EventId | None, EventId | None]]) -> list[Situation]:
        """What was decided about (person, entry, cause of the decision to come) before."""
        await self.save()
        return await queries.situations(
            self.tx.connection,
            [
                Asked(
                    person.person_id, person.company, entry_id, None if cause_id is None else assignment_id_of(cause_id)
                )
                for person, entry_id, cause_id in asked
            ],
        )

    def case(self, person: Person, situation: Situation) -> Case:
        """The decision to take."""
        return Case(
            inputs=person.values(),
            at=self.at,
            previous_owner=situation.previous_owner,
            account_owner=self._account_owners.get(person.company or "", situation.account_owner),
            passed_by=situation.passed_by,
        )

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
            retry_at = self.at + RETRY_FIRST * 2 ** min(attempts, RETRY_DOUBLINGS)
            if decision.retry_at is not None:
                retry_at = min(retry_at, decision.retry_at)
            trace = (*told_before, *decision.trace)
            self.hold(person.person_id, cause_id, entry_id, decision.reason, "nobody", trace=trace, retry_at=retry_at)
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
        if situation.current is not None:
            await queries.end(self.tx.connection, situation.current.assignment_id, self.at, instead)
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
        self._made.append((assignment, (person.person_id, *person.ids)))
        self._credits[choice.queue] |= choice.credits
        self.pool = self.pool.after(choice, self.at)
        if person.company is not None:
            self._account_owners[person.company] = choice.rep.rep_id
        self.tx.emit(lead_assigned(assignment, choice.rep.teams))
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
            self.hold(person.person_id, cause_id, entry_id, reason, "passed_by")
            return None
        return await self.place(person, situation, cause_id, entry_id)

    def hold(  # noqa: PLR0913  # what a hold is made of
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
        self._holds.append(
            Hold(
                person_id=person_id,
                lead_id=person_id,
                cause_id=cause_id,
                entry_id=entry_id,
                reason=reason,
                trace=[trial.as_json() for trial in trace],
                rules_version=self.rules.version,
                awaits=awaits,
                since=self.at,
                retry_at=retry_at,
            )
        )

    async def save(self) -> None:
        """Write what was decided so far."""
        connection = self.tx.connection
        if self._made:
            await queries.insert(connection, await inputs.sealed(connection, self._keys, self._made))
            await holds.drop(connection, [one.person_id for one, _ in self._made])
        for queue, credits in sorted(self._credits.items()):
            if credits:
                await queries.put_credits(connection, queue, credits)
        if self._holds:
            await holds.put(connection, self._holds)
        self._made, self._holds, self._credits = [], [], defaultdict(dict)


@asynccontextmanager
async def dispatching(tx: Tx, rules: Rules, keys: PersonKeys, at: datetime) -> AsyncIterator[Dispatcher]:
    """Wait for the turn, look at the pool (what others decided before is committed by then), decide, write."""
    await queries.lock_dispatcher(tx.connection)
    reps = await active_reps(tx.connection)
    dispatcher = Dispatcher(tx, rules, Pool(reps, await queries.all_credits(tx.connection)), keys, at)
    yield dispatcher
    await dispatcher.save()
