"""What is read from months, days and moments is what the marks add up to, mark by mark."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest_asyncio

from services.attribution.pipeline.counting import Total, cells_of, total_of
from services.attribution.pipeline.domain import Kind
from services.attribution.pipeline.reading import Found, Question, sums_in
from services.attribution.pipeline.spans import pieces
from services.attribution.reports.domain import Interval, Period
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.pipeline_facts import PipelineWorld, random_pipeline
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


def in_order(found: Found) -> Found:
    """The same, its times without empty ones and in order."""
    return found._replace(times=tuple(sorted((bucket, number) for bucket, number in found.times if number)))


def plainly(world: PipelineWorld, question: Question, kinds: list[Kind], periods: list[Any]) -> set[Found]:
    """The sums that were asked for, added up mark by mark."""
    sums: dict[tuple[Any, ...], Total] = defaultdict(Total)
    times: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    wanted = question.dimension or "all"
    for circumstances, marks in world.marks().values():
        for mark in (mark for mark in marks if mark.kind in kinds):
            cells = [cell for cell in cells_of(mark, circumstances) if cell[2] == "month"]
            under = {(dimension, key) for _, dimension, _, _, key, *_ in cells}
            if not set(question.only.items()) <= under:
                continue
            for place, (first, until) in enumerate(periods):
                if (first is None or first <= mark.at) and (until is None or mark.at < until):
                    for dimension, key in under:
                        if dimension == wanted:
                            name = (place, mark.kind, key, mark.step, mark.currency)
                            sums[name] = sums[name].plus(total_of(mark))
                            times[name][mark.bucket] += mark.number
    return {in_order(Found._make((*name, total, times[name].items()))) for name, total in sums.items() if any(total)}


KINDS: list[Kind] = ["lead_entered", "lead_next", "offered", "sla", "open", "won", "recurring", "revenue"]
QUESTIONS: list[tuple[Question, str | None, str, Interval | None]] = [
    (Question(), None, "UTC", None),
    (Question(), "2026-10-03", "UTC", "day"),
    (Question("team"), "2026-09-03", "America/St_Johns", "week"),
    (Question("channel"), "2026-09-17", "Asia/Kathmandu", "month"),
    (Question("rep"), "2026-09-17", "Pacific/Apia", None),
    (Question("country", {"team": "emea"}), None, "UTC", None),
    (Question("account"), "2026-09-17", "UTC", "month"),
    (Question("team", {"channel": "Email", "rep": "rosa"}), "2026-09-01", "Europe/Berlin", "month"),
    (Question(None, {"team": "(not set)"}), "2026-09-01", "Europe/Berlin", None),
]


async def test_what_is_read_from_sums_is_what_the_marks_add_up_to(attribution: Harness) -> None:
    facts = random_pipeline(7, 200)
    await attribution.deliver(*facts)
    world = PipelineWorld(facts)
    for question, first, zone, interval in QUESTIONS:
        period = Period(
            date.fromisoformat(first) if first else None, date(2026, 11, 18) if first else None, ZoneInfo(zone)
        )
        moments: list[tuple[datetime | None, datetime | None]] = [each.moments for _, each in pieces(period, interval)]
        async with attribution.runtime.database.reading() as connection:
            found = await sums_in(connection, question, KINDS, moments)
        expected = plainly(world, question, KINDS, moments)
        assert expected
        assert {in_order(one) for one in found if any(one.total)} == expected, question
