"""Who comes in, who leaves, and what becomes of runs when two people turn out to be one."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.nurture.enrolments import queries
from services.nurture.enrolments.domain import (
    ENROLLED,
    MAX_AGE,
    MERGED,
    Fact,
    Run,
    ending,
    may_enter,
    newly_met,
    settled,
    superfluous,
    triggered,
)
from services.nurture.enrolments.facts import (
    acceptance_fact,
    conversion_fact,
    handoff_fact,
    opened,
    run_ended,
    run_started,
    segment_fact,
    stage_fact,
    touch_fact,
)
from services.nurture.experiments import holdouts
from services.nurture.explaining.recording import record_entry
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.sending import queries as ledger
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.walking import goal_ahead
from shared.consents import permission
from shared.db import Connection, Tx
from shared.events import (
    AssignmentAccepted,
    ConsentChanged,
    ConversionRecorded,
    EnrolmentEnded,
    EnrolmentStarted,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadHandedOff,
    LeadMerged,
    LeadUnmerged,
    SegmentEntered,
    SegmentLeft,
    StageChanged,
    TouchRecorded,
)
from shared.identity import Member, resolve_many
from shared.ids import EventId, LeadId, SequenceId, derived_id
from shared.rules import Evaluation, NoSuchVersion
from shared.telemetry import counter

STARTED = counter("throughline_nurture_enrolments_started_total", "Runs of sequences begun", ["sequence"])
ENDED = counter("throughline_nurture_enrolments_ended_total", "Runs of sequences over, by how", ["sequence", "how"])


@dataclass(frozen=True, slots=True)
class Someone:
    """A person, locked and loaded, with the ids whose facts are theirs and their runs."""

    person: Person
    family: Sequence[Member]
    runs: list[Run]

    @property
    def active_runs(self) -> list[Run]:
        """Those under way."""
        return [run for run in self.runs if run.active]


async def on_touches(events: Sequence[TouchRecorded], tx: Tx, parts: Parts) -> None:
    """A touch may start or end runs. Machines' opens and clicks do neither."""
    await consider(tx, parts, [touch_fact(event) for event in events if not event.automated])


async def on_stages(events: Sequence[StageChanged], tx: Tx, parts: Parts) -> None:
    """A new stage may start or end runs, and make an earlier fact count. One that other rules made quietly does not."""
    told = [event for event in events if not event.quiet]
    await consider(tx, parts, [stage_fact(event) for event in told])
    reconsider(tx, parts, {event.lead_id for event in told})


async def on_segments(events: Sequence[SegmentEntered | SegmentLeft], tx: Tx, parts: Parts) -> None:
    """Entering or leaving a segment may start or end runs, and make an earlier fact count."""
    await consider(tx, parts, [segment_fact(event) for event in events])
    await look_again(tx, {event.lead_id for event in events})
    reconsider(tx, parts, {event.lead_id for event in events})


async def on_conversions(events: Sequence[ConversionRecorded], tx: Tx, parts: Parts) -> None:
    """A success may start or end runs; one that is taken back does neither."""
    await consider(tx, parts, [conversion_fact(event) for event in events if not event.withdrawn])


async def on_acceptances(events: Sequence[AssignmentAccepted], tx: Tx, parts: Parts) -> None:
    """A rep who takes the lead may start or end runs."""
    await consider(tx, parts, [acceptance_fact(event) for event in events])


async def on_handed_off(events: Sequence[LeadHandedOff], tx: Tx, parts: Parts) -> None:
    """A new customer: onboarding starts, marketing that was begun before ends."""
    await consider(tx, parts, [handoff_fact(event) for event in events if not event.withdrawn])


async def on_profiles(events: Sequence[LeadCaptured], tx: Tx, parts: Parts) -> None:
    """What is known now may make an earlier fact count, and a date that is waited for come."""
    await look_again(tx, {event.lead_id for event in events})
    reconsider(tx, parts, {event.lead_id for event in events})


async def on_consents(events: Sequence[ConsentChanged], tx: Tx, parts: Parts) -> None:
    """A refusal ends at once what it is about; a consent may make an earlier fact count."""
    denied = {event.lead_id for event in events if event.state == "denied"}
    for someone in await meet(tx, parts, denied):
        await end_refused(tx, parts, someone)
    reconsider(tx, parts, {event.lead_id for event in events})


async def on_identity(event: IdentityLinked | LeadMerged | LeadUnmerged, tx: Tx, parts: Parts) -> None:
    """Ids that turned out to be one person share one run of each sequence, one consent and one past."""
    ids = {event.lead_id, event.anonymous_lead_id if isinstance(event, IdentityLinked) else event.from_lead_id}
    for someone in await meet(tx, parts, ids):
        for run in superfluous(someone.runs):
            await end_run(tx, someone, run, MERGED)
        if isinstance(event, LeadUnmerged):
            await revive_runs(tx, parts, someone, event)
        await end_refused(tx, parts, someone)
    reconsider(tx, parts, ids)


async def on_erased(event: LeadErased, tx: Tx, parts: Parts) -> None:
    """Nothing is sent to an erased person any more, and what was sent forgets whom it went to."""
    for someone in await meet(tx, parts, {event.lead_id}):
        for run in someone.active_runs:
            await end_run(tx, someone, run, "erased")
    await queries.drop_pending_of(tx.connection, [event.lead_id])
    await ledger.forget(tx.connection, [event.lead_id])


async def on_started(event: EnrolmentStarted, tx: Tx, parts: Parts) -> None:
    """Our own decision, read back: it is here already, unless the database is an earlier copy."""
    if event.held_out:
        await holdouts.restore(event, tx)
        return
    try:
        plan = await parts.catalogue.plan(tx.connection, event.sequence_id, event.sequence_version)
    except NoSuchVersion:
        return  # this version was saved after the copy; its messages are known all the same
    run = Run(
        enrolment_id=event.enrolment_id,
        sequence_id=event.sequence_id,
        version=event.sequence_version,
        lead_id=event.lead_id,
        run=event.run,
        active=True,
        triggered_at=event.triggered_at or event.occurred_at,
        started_at=event.occurred_at,
    )
    await queries.restore_run(tx.connection, run, event.cause_event_id or EventId(event.enrolment_id), plan.first)


async def on_ended(event: EnrolmentEnded, tx: Tx, parts: Parts) -> None:
    """Our own decision, read back; one that a merge took does not count any more where the merge was undone since."""
    if event.reason == MERGED:
        met = await meet(tx, parts, {event.lead_id})
        if not any(run.enrolment_id == event.enrolment_id for someone in met for run in superfluous(someone.runs)):
            return
    await queries.end_runs(tx.connection, {event.enrolment_id: event.reason}, event.occurred_at)


async def consider(tx: Tx, parts: Parts, facts: Sequence[Fact]) -> None:
    """Let facts end and start runs, once all of the batch is known. Most concern nobody's, and are settled here."""
    screen = await parts.catalogue.screen(tx.connection, list((await _entered(tx, parts)).values()))
    matter = {fact.event_id: fact for fact in facts if screen.may_matter(fact)}
    if matter:
        tx.memory.setdefault("considered", {}).update(matter)
        reconsider(tx, parts, ())


def reconsider(tx: Tx, parts: Parts, lead_ids: Iterable[LeadId]) -> None:
    """Try facts again that would have started a sequence had more been known, once all of the batch is."""
    tx.put_off("decide", lambda named: _decide(tx, parts, named), lead_ids)


async def _decide(tx: Tx, parts: Parts, reconsidered: Iterable[LeadId]) -> None:
    """What a batch's facts end and start, and then what those start that waited for more to be known."""
    plans = await _entered(tx, parts)
    considered = tx.memory.pop("considered", {})
    facts = await opened(tx.connection, parts.runtime.keys, [*considered.values()])
    owners = await people.lock_owners(tx.connection, [(fact.lead_id, fact.occurred_at) for fact in facts])
    met = {someone.person.person_id: someone for someone in await _load(tx, parts, owners)}
    for person_id, fact in sorted(zip(owners, facts, strict=True), key=lambda item: (item[0], item[1].occurred_at)):
        await end_runs_by(tx, parts, met[person_id], fact)
        await note_met(tx, parts, met[person_id], fact)
        for plan in plans.values():
            await try_to_enter(tx, parts, met[person_id], plan, fact)
    waiting = [one for one in await _waiting(tx, reconsidered) if one[1].event_id not in considered]
    persons = set((await people.lock_persons(tx.connection, reconsidered if waiting else ())).values())
    met |= {someone.person.person_id: someone for someone in await _load(tx, parts, persons - met.keys())}
    facts = await opened(tx.connection, parts.runtime.keys, [fact for _, fact in waiting])
    for person_id in sorted(persons):
        for (sequence_id, _), fact in zip(waiting, facts, strict=True):
            if sequence_id in plans and people.covers(met[person_id].family, fact.lead_id, fact.occurred_at):
                await try_to_enter(tx, parts, met[person_id], plans[sequence_id], fact)


async def _waiting(tx: Tx, lead_ids: Iterable[LeadId]) -> list[tuple[SequenceId, Fact]]:
    """The facts that wait for more to be known of the persons behind ids."""
    may_be = bool(lead_ids) and await queries.any_pending(tx.connection)
    return await queries.pending_facts(tx.connection, await _all_ids(tx.connection, lead_ids)) if may_be else []


async def note_met(tx: Tx, parts: Parts, someone: Someone, fact: Fact) -> None:
    """Note what a person's runs have waited for, now or later; who waits for it goes on at once."""
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        met = newly_met(plan, run, fact, someone.person)
        if not met:
            continue
        changed = replace(run, met={**run.met, **met})
        someone.runs[someone.runs.index(run)] = changed
        waits = run.waits_at is not None and run.waits_at == run.step_id and run.waits_at in met
        ahead = goal_ahead(plan, changed, run.step_id, someone.person, fact.occurred_at) is not None
        await queries.note_met(tx.connection, run.enrolment_id, met, wakes=waits or ahead)


async def look_again(tx: Tx, lead_ids: Collection[LeadId]) -> None:
    """Runs that wait for a moment or for their hours look whether what is known now has brought them."""
    if await queries.any_waiting(tx.connection, sorted(lead_ids)):
        await queries.look_again(tx.connection, await _all_ids(tx.connection, lead_ids))


async def _all_ids(connection: Connection, lead_ids: Iterable[LeadId]) -> list[LeadId]:
    """All ids of the persons behind ids."""
    persons = await resolve_many(connection, [(one, None) for one in sorted(lead_ids)])
    families = (await people.load_families(connection, persons)).values()
    return sorted({member.lead_id for family in families for member in family})


async def _entered(tx: Tx, parts: Parts) -> dict[SequenceId, Plan]:
    """The sequences that can be entered, asked once a transaction."""
    if "entered" not in tx.memory:
        tx.memory["entered"] = {plan.sequence_id: plan for plan in await parts.catalogue.entered(tx.connection)}
    return tx.memory["entered"]


async def meet(tx: Tx, parts: Parts, lead_ids: Iterable[LeadId]) -> list[Someone]:
    """Lock and load the persons behind ids: from here on to the commit nobody else decides about them."""
    return await _load(tx, parts, (await people.lock_persons(tx.connection, lead_ids)).values())


async def _load(tx: Tx, parts: Parts, persons: Iterable[LeadId]) -> list[Someone]:
    """Persons who are locked."""
    wanted = sorted(set(persons))
    if not wanted:
        return []
    families = await people.load_families(tx.connection, wanted)
    loaded = await people.load_persons(tx.connection, parts.addresses, parts.runtime.keys, wanted, families)
    ids = sorted({lead_id for person in loaded.values() for lead_id in person.ids})
    runs = await queries.runs_of(tx.connection, ids)
    return [
        Someone(person, families[person_id], [run for run in runs if run.lead_id in person.ids])
        for person_id, person in sorted(loaded.items())
    ]


async def try_to_enter(tx: Tx, parts: Parts, someone: Someone, plan: Plan, fact: Fact) -> None:
    """Begin a run if the fact starts the sequence for this person and they may enter it."""
    now = await parts.present_in(tx)
    if fact.received_at < now - MAX_AGE:
        return  # history, read for the first time or again: it greets nobody
    if not triggered(plan, fact, someone.person)[0]:
        if not settled(plan.trigger, Evaluation(fact.values()), fact):
            await queries.keep_pending(tx.connection, plan.sequence_id, fact)
        return
    await queries.drop_pending(tx.connection, plan.sequence_id, fact.event_id)
    runs = [run for run in someone.runs if run.sequence_id == plan.sequence_id]
    allowed, _ = may_enter(plan.reentry, runs, now, plan.most_entries)
    if not allowed or await queries.was_caused(tx.connection, plan.sequence_id, fact.event_id):
        return
    since = await people.milestones_since(tx.connection, someone.family, fact.occurred_at)
    if ending(plan, since, someone.person, fact.occurred_at) is not None:
        return  # it was over before it began
    if await holdouts.keep_out(tx, plan, someone.person, runs, fact, now):
        return
    await start_run(tx, someone, plan, fact, since, now)


async def enrol(tx: Tx, parts: Parts, someone: Someone, sequence_id: SequenceId, cause: EventId) -> str:
    """Let a person enter a sequence without its trigger, as its reentry allows; answers what came of it."""
    plan = (await _entered(tx, parts)).get(sequence_id)
    if plan is None:
        return "there is no such sequence, or it is not active"
    if await queries.was_caused(tx.connection, sequence_id, cause):
        return "entered"  # the database is an earlier copy, and has read back that it did
    now = await parts.present_in(tx)
    runs = [run for run in someone.runs if run.sequence_id == sequence_id]
    allowed, why = may_enter(plan.reentry, runs, now, plan.most_entries)
    if not allowed:
        return why
    over = ending(plan, [], someone.person, now)
    if over is not None:
        return f"it was over before it began, {over.kind}: {over.because}"
    fact = Fact(cause, someone.person.person_id, now, now, {"type": ENROLLED})
    if await holdouts.keep_out(tx, plan, someone.person, runs, fact, now):
        return "held out, so that what the sequence does can be measured"
    await start_run(tx, someone, plan, fact, [], now)
    return "entered"


async def start_run(  # noqa: PLR0913  # what a run is made of
    tx: Tx, someone: Someone, plan: Plan, fact: Fact, since: Sequence[Fact], now: datetime
) -> None:
    """Begin a run and tell it. What happened `since` its cause may have met what its steps wait for."""
    person_id = someone.person.person_id
    number = max((run.run for run in someone.runs if run.sequence_id == plan.sequence_id), default=0) + 1
    run = Run(
        enrolment_id=derived_id("enrolment", plan.sequence_id, person_id, str(number)),
        sequence_id=plan.sequence_id,
        version=plan.version,
        lead_id=person_id,
        run=number,
        active=True,
        triggered_at=fact.occurred_at,
        started_at=now,
        step_id=plan.first,
    )
    for one in sorted(since, key=lambda one: one.occurred_at):
        run = replace(run, met={**run.met, **newly_met(plan, run, one, someone.person)})
    if not await queries.save_run(tx.connection, run, fact.event_id, plan.first):
        return
    await record_entry(tx.connection, plan, run, fact, someone.person)
    someone.runs.append(run)
    STARTED.labels(plan.sequence_id).inc()
    tx.emit(run_started(run, EventId(f"enrolment-started:{run.enrolment_id}"), fact.event_id, now))


async def revive_runs(tx: Tx, parts: Parts, someone: Someone, event: LeadUnmerged) -> None:
    """Runs that a merge had ended go on where they stood, if the person is in the sequence under no other id now.

    What would have ended them meanwhile still does. A message that the merge withdrew is not sent any more.
    """
    entered = {run.sequence_id for run in someone.active_runs}
    for run in await queries.runs_ended_as(tx.connection, someone.person.ids, MERGED):
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        since = await people.milestones_since(tx.connection, someone.family, run.triggered_at)
        if run.sequence_id in entered or ending(plan, since, someone.person, run.triggered_at) is not None:
            continue
        if await queries.revive_run(tx.connection, run.enrolment_id, MERGED):
            entered.add(run.sequence_id)
            someone.runs[someone.runs.index(run)] = replace(run, active=True)
            event_id = EventId(f"enrolment-revived:{run.enrolment_id}:{event.event_id}")
            tx.emit(run_started(run, event_id, event.event_id, await parts.present_in(tx)))


async def end_runs_by(tx: Tx, parts: Parts, someone: Someone, fact: Fact) -> None:
    """End the runs whose goal or exit the fact is."""
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        over = ending(plan, [fact], someone.person, run.triggered_at)
        if over is not None:
            await end_run(tx, someone, run, f"{over.kind}: {over.because}")


async def end_refused(tx: Tx, parts: Parts, someone: Someone) -> None:
    """End what a person does not want to be sent any more, by none of the ways that it takes."""
    for run in someone.active_runs:
        plan = await parts.catalogue.plan(tx.connection, run.sequence_id, run.version)
        found = [permission(someone.person.consents, channel, plan.purpose) for channel in plan.channels or ("email",)]
        if all(each.state == "denied" for each in found):
            await end_run(tx, someone, run, found[0].why)


async def end_run(tx: Tx, someone: Someone, run: Run, reason: str) -> None:
    """End a run of somebody, withdraw its message that has not left, and tell both."""
    someone.runs[someone.runs.index(run)] = replace(run, active=False)
    await end_runs(tx, [(run, reason)])


async def end_runs(tx: Tx, over: Sequence[tuple[Run, str]]) -> None:
    """End runs, each for a reason: of many persons, who are locked, in two statements."""
    if not over:
        return
    ended = await queries.end_runs(tx.connection, {run.enrolment_id: reason for run, reason in over})
    left = [(run, reason) for run, reason in over if run.enrolment_id in ended]
    tx.emit(*await ledger.withdraw(tx.connection, {run.enrolment_id: reason for run, reason in left}))
    for run, reason in left:
        ENDED.labels(run.sequence_id, reason.partition(":")[0]).inc()
        tx.emit(run_ended(run, reason, ended[run.enrolment_id]))
