"""Segments in sequences: what enters and ends a run, whatever the order of arrival."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest_asyncio

from shared.events import SegmentEntered, SegmentLeft
from shared.ids import EventId, LeadId, SegmentId
from shared.settings import Settings
from tests.service.nurture_world import World, open_world

ANN = "ann@example.com"
BEN = "ben@example.com"
_numbers = count(1)


def moved(kind: Any, lead_id: LeadId, segment_id: str, revision: int, *, initial: bool = False) -> Any:
    """Somebody entered or left a segment."""
    at = datetime.now(UTC)
    return kind(
        event_id=EventId(f"segment-{next(_numbers)}"),
        lead_id=lead_id,
        occurred_at=at,
        received_at=at,
        segment_id=SegmentId(segment_id),
        segment_version=1,
        revision=revision,
        initial=initial,
    )


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_world(settings) as made:
        yield made


async def test_entering_a_segment_starts_a_sequence_and_leaving_it_ends_the_run(world: World) -> None:
    ann, ben = world.facts.lead_id(ANN), world.facts.lead_id(BEN)
    trigger = "event.type == 'segment_entered' && event.segment == 'eu' && !event.initial"
    sequence_id = await world.saves(trigger=trigger, exit="!('eu' in segments)")
    for email in (ANN, BEN):
        await world.tell(await world.facts.captured(email), world.facts.consent(email))
    await world.tell(moved(SegmentEntered, ben, "eu", 1, initial=True), moved(SegmentEntered, ann, "us", 1))
    await world.tell(moved(SegmentEntered, ann, "eu", 1))
    assert await world.runs(BEN) == []
    [run] = await world.runs(ANN)
    assert (run["sequence_id"], run["state"]) == (sequence_id, "active")
    await world.tell(moved(SegmentLeft, ann, "us", 2))
    assert (await world.runs(ANN))[0]["state"] == "active"
    await world.tell(moved(SegmentLeft, ann, "eu", 2))
    [run] = await world.runs(ANN)
    assert (run["state"], run["reason"].partition(":")[0]) == ("ended", "exit")


async def test_a_trigger_waits_for_the_segment_that_comes_after_its_fact(world: World) -> None:
    ann = world.facts.lead_id(ANN)
    sequence_id = await world.saves(trigger="event.type == 'form_submitted' && 'eu' in segments", exit=None, goal=None)
    await world.tell(moved(SegmentLeft, ann, "late", 2), await world.facts.captured(ANN), world.facts.consent(ANN))
    await world.tell(world.facts.form(ANN))
    assert sequence_id not in {run["sequence_id"] for run in await world.runs(ANN)}
    await world.tell(moved(SegmentEntered, ann, "late", 1), moved(SegmentEntered, ann, "eu", 1))
    assert sequence_id in {run["sequence_id"] for run in await world.runs(ANN)}
    async with world.nurture.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT segment_id, revision, member FROM segments ORDER BY segment_id")
    assert [tuple(row) for row in rows] == [("eu", 1, True), ("late", 2, False)], "the late word lost"
