"""A sequence tried on the facts of the last days, as Kafka has them: who would have entered, what they would have got.

People are taken as they are known now, and messages as those that their consent and the sending policy of now allow,
with what they would have been sent by this sequence alone. Nothing is written.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.nurture.enrolments.domain import Fact, Run, Screen, may_enter, screen_of
from services.nurture.enrolments.facts import (
    acceptance_fact,
    conversion_fact,
    handoff_fact,
    opened,
    segment_fact,
    stage_fact,
    touch_fact,
)
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.permission.document import SendingPolicy
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.imagining import Passage, first_trigger, imagine
from shared.events import (
    TOPIC_OF,
    AssignmentAccepted,
    ConversionRecorded,
    Event,
    LeadHandedOff,
    SegmentEntered,
    SegmentLeft,
    StageChanged,
    TouchRecorded,
)
from shared.identity import persons_behind
from shared.ids import LeadId
from shared.kafka import reading_from

KINDS = (
    TouchRecorded,
    ConversionRecorded,
    AssignmentAccepted,
    LeadHandedOff,
    StageChanged,
    SegmentEntered,
    SegmentLeft,
)
TOPICS = tuple(sorted({TOPIC_OF[kind] for kind in KINDS}))
AT_ONCE = 2_000
MOST_FACTS = 300_000
EXAMPLES = 20
Progress = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """What a version would have done."""

    entered: int = 0
    people: int = 0
    per_day: Counter[str] = field(default_factory=Counter)
    happenings: Counter[tuple[str, str]] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, lead_id: LeadId, passages: Sequence[Passage]) -> None:
        """Count what one person would have gone through."""
        self.people += bool(passages)
        if passages and len(self.examples) < EXAMPLES:
            self.examples.append(lead_id)
        for passage in passages:
            self.entered += 1
            self.per_day[passage.entered_at.date().isoformat()] += 1
            for one in passage.happenings:
                if one.step_id is not None and one.what not in ("waits", "would go on"):
                    self.happenings[one.step_id, one.what] += 1
                elif one.what == "ends":
                    self.endings[(one.why or "").partition(":")[0]] += 1

    def as_json(self) -> dict[str, Any]:
        """For people to read."""
        return {
            "entered": self.entered,
            "people": self.people,
            "entered_per_day": dict(sorted(self.per_day.items())),
            "steps": [
                {"step_id": step_id, "what": what, "times": times}
                for (step_id, what), times in sorted(self.happenings.items())
            ],
            "endings": dict(sorted(self.endings.items())),
            "lead_ids": self.examples,
        }


async def try_on_history(
    parts: Parts, draft: Plan, serving: Plan | None, days: int, progress: Progress
) -> dict[str, Any]:
    """What a version would have made of the last days, beside the one that counts."""
    plans = [draft] if serving is None else [draft, serving]
    async with parts.runtime.database.reading() as connection:
        now = await parts.present(connection)
        policy = await parts.policy.current(connection)
    since = now - timedelta(days=days)
    told, facts = await _read(parts, screen_of(plans), since, now, progress)
    tallies = [Tally() for _ in plans]
    ids = sorted(facts)
    for start in range(0, len(ids), AT_ONCE):
        chunk = ids[start : start + AT_ONCE]
        async with parts.runtime.database.reading() as connection:
            persons = await people.load_persons(connection, parts.addresses, parts.runtime.keys, chunk)
            theirs = await opened(
                connection, parts.runtime.keys, [fact for person_id in chunk for fact in facts[person_id]]
            )
        place = 0
        for person_id in chunk:
            mine = sorted(theirs[place : place + len(facts[person_id])], key=lambda fact: fact.occurred_at)
            place += len(facts[person_id])
            for plan, tally in zip(plans, tallies, strict=True):
                tally.add(person_id, passages_of(plan, persons[person_id], mine, now, policy))
        await progress(told)
    return {
        "from": since.isoformat(),
        "to": now.isoformat(),
        "facts": told,
        "complete": sum(len(one) for one in facts.values()) < MOST_FACTS,
        "would": tallies[0].as_json(),
        "serving": None if serving is None else {"version": serving.version, **tallies[1].as_json()},
    }


def passages_of(
    plan: Plan, person: Person, facts: Sequence[Fact], until: datetime, policy: SendingPolicy | None = None
) -> list[Passage]:
    """All passages of a person, one after the other, as the sequence lets them in again."""
    passages: list[Passage] = []
    runs: list[Run] = []
    left = list(facts)
    while left:
        place, _ = first_trigger(plan, person, left)
        if place is None:
            break
        entered_at = left[place].occurred_at
        later = left[place + 1 :]
        allowed, _ = may_enter(plan.reentry, runs, entered_at, plan.most_entries)
        if allowed:
            begun = Passage(entered_at, policy, [one for earlier in passages[-1:] for one in earlier.had])
            passage = imagine(plan, person, later, until, begun, len(runs) + 1)
            passages.append(passage)
            ids = ("imagined", plan.sequence_id, plan.version, person.person_id, len(runs) + 1)
            runs.append(Run(*ids, passage.ended_at is None, entered_at, entered_at))
            if passage.ended_at is None:
                break
            later = [fact for fact in later if fact.occurred_at >= passage.ended_at]
        left = later
    return passages


async def _read(
    parts: Parts, screen: Screen, since: datetime, now: datetime, progress: Progress
) -> tuple[int, dict[LeadId, list[Fact]]]:
    """The facts of each person that may matter, and how many facts there were."""
    told, kept = 0, 0
    found: dict[LeadId, list[Fact]] = {}
    seen: set[str] = set()
    async with reading_from(parts.runtime.settings) as reader:
        behind = await reader.begin(TOPICS, {}, since)
        while behind and kept < MOST_FACTS:
            events, _ = await reader.read(AT_ONCE)
            behind = reader.is_behind
            told += len(events)
            facts = [fact for event in events if (fact := _fact(event)) is not None]
            matter = [
                fact
                for fact in facts
                if since <= fact.occurred_at <= now and fact.event_id not in seen and screen.may_matter(fact)
            ]
            seen |= {fact.event_id for fact in matter}
            async with parts.runtime.database.reading() as connection:
                persons = await persons_behind(connection, [(fact.lead_id, fact.occurred_at) for fact in matter])
            for person_id, fact in zip(persons, matter, strict=True):
                found.setdefault(person_id, []).append(fact)
            kept += len(matter)
            await progress(told)
    return told, found


def _fact(event: Event) -> Fact | None:  # a case for each kind
    match event:
        case TouchRecorded():
            return None if event.automated else touch_fact(event)
        case ConversionRecorded():
            return None if event.withdrawn else conversion_fact(event)
        case AssignmentAccepted():
            return acceptance_fact(event)
        case LeadHandedOff():
            return None if event.withdrawn else handoff_fact(event)
        case StageChanged():
            return None if event.quiet else stage_fact(event)
        case SegmentEntered() | SegmentLeft():
            return segment_fact(event)
        case _:
            return None
