"""Writes down how decisions were reached, in the transaction that carries them out."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.nurture.enrolments.domain import Fact, Run
from services.nurture.explaining import queries
from services.nurture.explaining.domain import Basis, decision, entry, turns_taken, with_hold
from services.nurture.people.domain import Person
from services.nurture.sending.domain import Hold, NextAct
from services.nurture.sequences.domain import BranchStep, Plan, WaitStep
from shared.db import Connection
from shared.ids import MessageId
from shared.smtp import Outcome


async def record(connection: Connection, decided: Mapping[MessageId, tuple[Basis, str, str | None]]) -> None:
    """Keep how messages were claimed, suppressed or found impossible (outcome and reason): one statement for all."""
    decisions = {this: decision(basis, outcome, reason) for this, (basis, outcome, reason) in decided.items()}
    if decisions:
        await queries.save_decisions(connection, decisions)


async def record_hold(connection: Connection, message_id: MessageId, basis: Basis, hold: Hold) -> None:
    """Keep why a message waits, and since when."""
    taken = decision(basis, "held", hold.reason, hold.until)
    holds = with_hold(await queries.holds_of(connection, message_id), basis.at, hold)
    await queries.save_holds(connection, message_id, taken, holds)


async def record_attempt(connection: Connection, row: Any, outcome: Outcome) -> None:
    """Keep what a provider answered that did not take a message: the ledger only holds the last answer."""
    attempt = {"attempt": row["attempts"], "claimed_at": row["claimed_at"], "answered": outcome.reason}
    await queries.add_attempt(connection, row["message_id"], attempt)


async def record_turns(connection: Connection, looked: Sequence[tuple[Plan, Run, str, NextAct, Person]]) -> None:
    """Keep which ways runs took where they had a choice: one statement for all, none where there was no choice."""
    taken = [
        (run.enrolment_id, turn)
        for plan, run, start, act, person in looked
        if isinstance(plan.steps.get(start), BranchStep | WaitStep)
        for turn in turns_taken(plan, start, act, person)
    ]
    if taken:
        await queries.take_steps(connection, taken)


async def record_entry(connection: Connection, plan: Plan, run: Run, fact: Fact, person: Person) -> None:
    """Keep how a run began."""
    await queries.take_steps(connection, [(run.enrolment_id, entry(plan, fact, person))])
