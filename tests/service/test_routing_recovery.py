"""A database restored to an earlier copy learns from Kafka what it had decided, and decides none of it anew."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.events import (
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    ConversionRecorded,
    DealChanged,
    Event,
    LeadAssigned,
)
from shared.settings import Settings
from tests.service.routing_support import Routing, captured, entered, lead_id, merged, routing_service

DECISIONS = (LeadAssigned, AssignmentAccepted, AssignmentRejected, AssignmentExpired, DealChanged)
STATE = """
SELECT assignment_id, lead_id, person_id, revision, rep_id, queue, strategy, state, assigned_at, due_at, rules_version,
    trace, reason, ended_at IS NULL AS current FROM assignments ORDER BY assignment_id
"""
DEALS = """
SELECT deal_id, lead_id, revision, external_id, name, status, stage, probability, value_minor, currency, rep_id,
    opened_at, closed_at, reason, conversion_id FROM deals ORDER BY deal_id
"""


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        await service.hire("ann")
        await service.hire("bob")
        await service.put_rules()
        yield service


async def published(routing: Routing) -> list[Event]:
    facts: list[Event] = []
    for kind in DECISIONS:
        facts += await routing.service.told(kind)
    return facts


async def rows(routing: Routing, statement: str) -> list[dict[str, object]]:
    async with routing.service.runtime.database.reading() as connection:
        return [dict(row) for row in await connection.fetch(statement)]


async def restore_earlier_copy(routing: Routing) -> None:
    """Everything since the reps were hired is lost: decisions, what was read, what was told."""
    async with routing.service.runtime.database.reading() as connection:
        for table in ("assignments", "turns", "holds", "deals", "deal_history", "inbox", "event_log", "standings"):
            await connection.execute(f"DELETE FROM {table}")
        await connection.execute("UPDATE reps SET open_leads = 0, last_assigned_at = NULL")


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("first", ["four", "five"])
async def test_published_decisions_are_taken_over_in_any_order(routing: Routing, first: str, backwards: bool) -> None:
    await routing.qualify(first)  # of two merged offers the earlier goes on: the survivor's, or the other's
    routing.clock.move(timedelta(seconds=1))
    await routing.qualify("one", "two", "three", "four" if first == "five" else "five")
    await routing.service.deliver(merged("five", into="four"))
    await routing.answer("one", "accept")
    await routing.answer("two", "reject", reason="not mine")
    routing.clock.move(timedelta(minutes=30))
    await routing.answer("three", "accept")
    await routing.pass_time(timedelta(minutes=31))
    body = {"lead_id": lead_id("one"), "name": "Acme", "value_minor": 700, "currency": "EUR"}
    deal_id = (await routing.client.post("/v1/deals", json=body)).json()["deal_id"]
    await routing.client.patch(f"/v1/deals/{deal_id}", json={"won": True})
    before = (await rows(routing, STATE), await rows(routing, DEALS), await routing.counted_loads())
    facts = await published(routing)

    await restore_earlier_copy(routing)
    await routing.service.deliver(*(reversed(facts) if backwards else facts))

    after = (await rows(routing, STATE), await rows(routing, DEALS), await routing.counted_loads())
    assert after == before
    assert await routing.service.told(LeadAssigned) == []
    again = await routing.client.patch(f"/v1/deals/{deal_id}", json={"won": True})
    assert (again.status_code, await routing.service.told(ConversionRecorded)) == (200, [])


async def test_causes_read_again_are_not_decided_anew_once_the_decision_is_known(routing: Routing) -> None:
    causes = [captured("one"), captured("two"), entered("one"), entered("two")]
    await routing.service.deliver(*causes)
    before = await rows(routing, STATE)
    facts = await published(routing)
    await restore_earlier_copy(routing)
    await routing.service.deliver(*facts)
    await routing.service.deliver(*causes)
    assert await rows(routing, STATE) == before
    assert await routing.service.told(LeadAssigned) == []


async def test_where_a_decision_was_taken_anew_first_the_published_one_counts(routing: Routing) -> None:
    causes = [captured("zero"), captured("one"), entered("zero"), entered("one")]
    await routing.service.deliver(*causes)
    owner = await routing.owner("one")
    facts = await published(routing)
    await restore_earlier_copy(routing)
    await routing.service.deliver(captured("one"), causes[3])  # without the lead before it, the turn is another's
    assert await routing.owner("one") != owner
    await routing.service.deliver(*facts)
    assert await routing.owner("one") == owner
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_own_facts_met_in_the_normal_course_change_nothing(routing: Routing) -> None:
    await routing.qualify("one", "two", "three")
    await routing.answer("one", "accept")
    await routing.answer("two", "reject", reason="not mine")
    before = (await rows(routing, STATE), await rows(routing, "SELECT * FROM turns ORDER BY queue_id, rep_id"))
    await routing.service.deliver(*await published(routing))
    assert (await rows(routing, STATE), await rows(routing, "SELECT * FROM turns ORDER BY queue_id, rep_id")) == before
