"""How large a segment would be, and who would be in it, before it is saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.scoring.parts import Parts
from services.scoring.segments import queries
from services.scoring.segments.document import Segment
from services.scoring.segments.domain import Live, holds, margin, why
from services.scoring.segments.handlers import look, seen
from shared.db import Connection, Database
from shared.ids import LeadId
from shared.rules import Evaluation

EXACT_UP_TO = 100_000
PAGE = 500
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """Somebody who would be in, and the values that make it so."""

    lead_id: LeadId
    why: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Preview:
    """How many of how many people; where only some were looked at, between which sizes the true one lies."""

    people: int
    looked_at: int
    size: int
    share: float
    exact: bool
    at_least: int
    at_most: int
    samples: Sequence[Sample]


async def preview(database: Database, parts: Parts, condition: Segment, *, exact_up_to: int = EXACT_UP_TO) -> Preview:
    """Try a condition on everybody, or, of many people, on so many taken at random. Writes nothing."""
    async with database.reading() as connection:
        people = await queries.number_of_people(connection)
        sampled = None
        if people > exact_up_to:
            sampled = sorted(await queries.sampled_people(connection, exact_up_to / people, exact_up_to))
    looked_at = hits = 0
    samples: list[Sample] = []
    after = LeadId("")
    while True:
        async with database.reading() as connection, connection.transaction(readonly=True):
            if sampled is None:
                page = await queries.people_after(connection, after, PAGE)
            else:
                page = sampled[looked_at : looked_at + PAGE]
            found = await _matching(connection, parts, condition, page)
        looked_at, hits = looked_at + len(page), hits + len(found)
        samples += found[: SHOWN - len(samples)]
        if len(page) < PAGE:
            break
        after = page[-1]
    if sampled is None:
        share = round(hits / looked_at, 6) if looked_at else 0.0
        return Preview(looked_at, looked_at, hits, share, True, hits, hits, samples)
    low, high = margin(hits, looked_at)
    share = hits / looked_at if looked_at else 0.0
    size, at_least, at_most = (round(one * people) for one in (share, low, high))
    return Preview(people, looked_at, size, round(share, 6), False, at_least, at_most, samples)


async def _matching(connection: Connection, parts: Parts, condition: Segment, page: Sequence[LeadId]) -> list[Sample]:
    people, stages = await seen(connection, page)
    serving = (await parts.segments.live(connection)).serving if condition.nested else ()
    live = Live(serving, [condition])
    facts = await look(connection, parts, live, [condition], people, stages, await parts.present(connection))
    kept = await queries.kept_before(connection, page) if condition.nested else {}
    found = []
    for person_id, known in sorted(facts.items()):
        results = kept[person_id].results if person_id in kept else frozenset()
        members = [segment.segment_id for segment in serving if segment.key in results]
        if holds(condition, known, members, Evaluation(known.values)):
            found.append(Sample(person_id, why(condition, known, members)))
    return found
