"""Gives leads to reps: one transaction at a time over all processes, under a row lock."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from services.routing.assignments import holds, inputs, queries
from services.routing.assignments.domain import MOST_OFFERS, Assignment, Case, Choice, Nobody, Pool, Trial, choose
from services.routing.assignments.facts import assignment_id_of, lead_assigned
from services.routing.assignments.holds import Hold, Why
from services.routing.assignments.ownership import WORKED_ON
from services.routing.assignments.queries import Asked, Situation
from services.routing.decisions import queries as decisions
from services.routing.decisions.queries import Seen
from services.routing.fairness import queries as fairness
from services.routing.fairness.domain import Books, Entry, Kind
from services.routing.fairness.entries import gave_back
from services.routing.fairness.queries import Line
from services.routing.notifications.queries import Notice, notice
from services.routing.parts import Parts
from services.routing.people.domain import Person
from services.routing.reps.domain import Rep
from services.routing.reps.queries import active_reps, ready_calendars
from services.routing.rules.domain import Rules
from services.routing.sla import domain as sla
from services.routing.sla.queries import start
from shared.db import Tx, agreed_now
from shared.ids import AssignmentId, EventId, LeadId, RepId
from shared.personal import PersonKeys
from shared.telemetry import counter, log

ASSIGNED = counter(
    "throughline_routing_assignments_total", "Leads given to reps: is routing alive, by what", ["strategy"]
)
HELD = counter("throughline_routing_held_total", "Leads that no rep could be found for: somebody must act", ["why"])
ASSIGNED_KIND = "assigned"
CLAIMED = "claim"
RETRY_FIRST = timedelta(minutes=1)
RETRY_DOUBLINGS = 4


class Dispatcher:
    """The decisions of one transaction. It holds the lock, the pool as each decision leaves it, and what to write."""

    def __init__(self, tx: Tx, rules: Rules, pool: Pool, keys: PersonKeys, at: datetime, number: int) -> None:  # noqa: PLR0913  # what decisions rest on
        self.tx = tx
        self.rules = rules
        self.pool = pool
        self.at = at
        self._keys = keys
        self._made: list[tuple[Assignment, Sequence[LeadId]]] = []
        self._holds: list[Hold] = []
        self._number = number
        self._lines: list[Line] = []
        self._books: Mapping[str, Books] = pool.books
        self._seen: list[Seen] = []
        self._states: dict[RepId, Rep] = {}
        self._clocks: list[sla.Running] = []
        self._notices: list[Notice] = []
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
            previous_at=situation.previous_at,
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
        open_to_claim: bool = True,
    ) -> Assignment | None:
        """Give a lead to the rep that the rules choose, or hold it; in a claim queue it is open to all first."""
        case = self.case(person, situation)
        decision = choose(case, self.rules, self.pool)
        if isinstance(decision, Nobody):
            self.hold_for_nobody(
                person.person_id, decision, cause_id, entry_id, attempts=attempts, told_before=told_before
            )
            return None
        trace = (*told_before, *decision.trace)
        if decision.claimants and open_to_claim:
            self._open(person, decision, cause_id, entry_id, trace)
            return None
        return await self.assign(person, situation, decision, cause_id, entry_id, trace=trace, case=case)

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
        case: Case | None = None,
    ) -> Assignment:
        """Make the chosen rep responsible; the assignment before ends, `instead` saying why.

        `case` is what the rules chose upon, where they did.
        """
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
        if case is not None:
            self._note(assignment.assignment_id, case)
        choice = choice.of_lead(assignment.assignment_id, person.person_id)
        self._write(choice.queue, choice.entries)
        self._clocks += sla.started(assignment, choice.sla, choice.rep.calendar)
        self._notices.append(Notice(assignment.assignment_id, ASSIGNED_KIND, 0, "rep", person.person_id))
        self.pool = self.pool.after(choice, self.at)
        if person.company is not None:
            self._account_owners[person.company] = choice.rep.rep_id
        self.tx.emit(lead_assigned(assignment, choice.rep.teams))
        ASSIGNED.labels(choice.strategy).inc()
        return assignment

    async def give_back(self, assignment: Assignment, kind: Kind, why: str) -> str | None:
        """A lead is taken from its rep: what it cost in turns comes back before the next decision. Answers where."""
        await self.save()
        paid = await fairness.paid_in(self.tx.connection, assignment.assignment_id)
        if paid is None:
            return None
        queue, rep_id = paid
        self.book(queue, gave_back(assignment, rep_id, kind, why, self.at))
        return queue

    def book(self, queue: str, entry: Entry) -> None:
        """Write an entry of its own into the books of a queue."""
        self._write(queue, (entry,))
        self.pool = self.pool.booked(queue, (entry,))

    def _open(
        self, person: Person, choice: Choice, cause_id: EventId, entry_id: EventId, trace: Sequence[Trial]
    ) -> None:
        """Let all members of a queue claim a lead, and tell them."""
        claimants = [rep.rep_id for rep in choice.claimants]
        ends = (rep.calendar.after_working(self.at, choice.claim_minutes) for rep in choice.claimants)
        self.hold(
            person.person_id,
            cause_id,
            entry_id,
            f"open to be claimed by {len(claimants)} in {choice.queue}",
            "claim",
            trace=trace,
            retry_at=min((end for end in ends if end is not None), default=None),
            open_in=(choice.queue, claimants),
        )
        self._notices += [Notice(cause_id, "claimable", 0, rep_id, person.person_id) for rep_id in claimants]

    async def offer_to_next(self, refused: Assignment, person: Person, cause_id: EventId) -> Assignment | None:
        """After a rep passed a lead by: the next rep, unless so many passed it by that a person has to look at it.

        What was claimed is open to be claimed again; what the strategy gave out goes on by the strategy. One that is
        worked on goes on too, though no lead is given out that comes in at its stage.
        """
        if not self.routes(person) and person.stage not in WORKED_ON:
            return None
        entry_id = refused.entry_id or cause_id
        situation = await self.situation(person, entry_id)
        if situation.current is not None:
            return None
        if situation.offers >= MOST_OFFERS:
            reason = f"{situation.offers} reps passed it by; give it to somebody by hand"
            self.hold(person.person_id, cause_id, entry_id, reason, "passed_by")
            return None
        claimed = refused.strategy == CLAIMED
        return await self.place(person, situation, cause_id, entry_id, open_to_claim=claimed)

    def hold_for_nobody(  # noqa: PLR0913  # what a hold is made of
        self,
        person_id: LeadId,
        nobody: Nobody,
        cause_id: EventId,
        entry_id: EventId,
        *,
        attempts: int = 0,
        told_before: Sequence[Trial] = (),
    ) -> None:
        """Keep a lead that no rep can take on the list of those that wait; it is tried again, rarer each time."""
        retry_at = self.at + RETRY_FIRST * 2 ** min(attempts, RETRY_DOUBLINGS)
        if nobody.retry_at is not None:
            retry_at = min(retry_at, nobody.retry_at)
        trace = (*told_before, *nobody.trace)
        self.hold(person_id, cause_id, entry_id, nobody.reason, "nobody", trace=trace, retry_at=retry_at)

    def hold(  # noqa: PLR0913  # what a hold is made of
        self,
        person_id: LeadId,
        cause_id: EventId,
        entry_id: EventId,
        reason: str,
        why: Why,
        *,
        trace: Sequence[Trial] = (),
        awaits: int | None = None,
        retry_at: datetime | None = None,
        open_in: tuple[str, Sequence[RepId]] | None = None,
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
                why=why,
                queue=None if open_in is None else open_in[0],
                claimants=None if open_in is None else open_in[1],
            )
        )

    def _write(self, queue: str, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._number += 1
            self._lines.append(Line(self._number, queue, entry))

    def _note(self, assignment_id: AssignmentId, case: Case) -> None:
        """Keep what a decision saw; it comes before what it writes into the books."""
        self._number += 1
        changed = tuple(rep for rep in self.pool.reps if self._states.get(rep.rep_id) is not rep)
        self._states |= {rep.rep_id: rep for rep in changed}
        self._seen.append(Seen(self._number, assignment_id, case, self.pool, changed))

    async def save(self) -> None:
        """Write what was decided so far."""
        connection = self.tx.connection
        if self._made:
            await queries.insert(connection, await inputs.sealed(connection, self._keys, self._made))
            await holds.drop(connection, [one.person_id for one, _ in self._made])
            await start(connection, self._clocks)
        if self._seen:
            await decisions.put(connection, self._seen)
        if self._lines:
            await fairness.write(connection, self._lines, self._books, self.pool.books)
        if self._seen or self._lines:
            await fairness.count_up(connection, self._number)
        if self._holds:
            await holds.put(connection, self._holds)
        await notice(connection, self._notices, self.at)
        self._made, self._holds, self._seen, self._lines = [], [], [], []
        self._clocks, self._notices = [], []
        self._books = self.pool.books


@asynccontextmanager
async def dispatching(tx: Tx, rules: Rules, parts: Parts) -> AsyncIterator[Dispatcher]:
    """Wait for the turn, look at the clock and the pool (what others decided is committed by then), decide, write."""
    await ready_calendars(tx.connection)
    number = await fairness.lock_dispatcher(tx.connection)
    at = await agreed_now(tx.connection, parts.runtime.clock)
    pool = Pool(await active_reps(tx.connection, at), await fairness.all_books(tx.connection))
    dispatcher = Dispatcher(tx, rules, pool, parts.runtime.keys, at, number)
    yield dispatcher
    await dispatcher.save()
