"""Decisions wait for their turn; what they are told to have happened at is after all that they saw."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.routing.fairness.queries import lock_dispatcher
from shared.events import AssignmentAccepted, AssignmentRejected, LeadAssigned
from shared.settings import Settings
from shared.testing import eventually
from tests.service.routing_support import Routing, lead_id, routing_service

WAITING = """
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%dispatcher%'
"""


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def answered_meanwhile(routing: Routing, **waits: str) -> None:
    """A call that waits for its turn while the lead's offer is accepted a minute later; then it has its turn."""
    runtime = routing.service.runtime
    async with runtime.database.transaction() as tx:
        await lock_dispatcher(tx.connection)
        call = asyncio.create_task(routing.answer("one", **waits))
        async with runtime.database.reading() as connection:
            await eventually(lambda: connection.fetchval(WAITING))
        routing.clock.move(timedelta(minutes=1))
        assert (await routing.answer("one", "accept")).status_code == 200
    answer = await call
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("waits", [{"what": "reassign", "reason": "ill"}, {"what": "reject", "reason": "busy"}])
async def test_what_waited_for_its_turn_is_told_after_what_happened_meanwhile(
    routing: Routing, waits: dict[str, str]
) -> None:
    for name in ("ann", "bob"):
        await routing.hire(name)
    await routing.qualify("one")
    await answered_meanwhile(routing, **waits)
    (accepted,) = await routing.service.told(AssignmentAccepted)
    given = [fact for fact in await routing.service.told(LeadAssigned) if fact.revision > 1]
    later = [*given, *await routing.service.told(AssignmentRejected)]
    assert later
    assert all(fact.occurred_at >= accepted.occurred_at for fact in later)
    history = (await routing.client.get(f"/v1/leads/{lead_id('one')}/assignments")).json()["items"]
    (ended,) = [one for one in history if one["assignment_id"] == accepted.assignment_id]
    assert ended["ended_at"] >= ended["accepted_at"]


async def test_a_lead_that_is_given_by_hand_takes_its_turn_before_its_hold(routing: Routing) -> None:
    """Whoever decides about a held lead has the turn first; the other way round both would wait for each other."""
    await routing.qualify("one")
    runtime = routing.service.runtime
    async with runtime.database.transaction() as tx:
        await lock_dispatcher(tx.connection)
        ann = asyncio.create_task(routing.hire("ann"))
        async with runtime.database.reading() as connection:
            await eventually(lambda: connection.fetchval(WAITING))
    rep_id = await ann
    async with runtime.database.transaction() as tx:
        await lock_dispatcher(tx.connection)
        call = asyncio.create_task(
            routing.client.post(f"/v1/holds/{lead_id('one')}:assign", json={"rep_id": rep_id, "reason": "hers"})
        )
        async with runtime.database.reading() as connection:
            await eventually(lambda: connection.fetchval(WAITING))
        await tx.connection.execute("SELECT 1 FROM holds FOR UPDATE NOWAIT")
    answer = await call
    assert answer.status_code == 200, answer.text
