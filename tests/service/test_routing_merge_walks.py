"""Whatever happens to leads that are merged and parted, readers of the highest revision know whose they are."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.events import LeadAssigned
from shared.ids import AssignmentId, EventId, LeadId
from shared.settings import Settings
from tests.service.routing_support import Routing, captured, entered, lead_id, merged, routing_service, unmerged

NAMES = ("a", "b", "c")
STAGES = ("mql", "mql", "customer", "lead", "disqualified", "recycled")
ANSWERS = ("accept", "accept", "reject", "reassign")
STEPS = 30


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


class Walk:
    """Three leads, and who is whom."""

    def __init__(self, routing: Routing, dice: random.Random) -> None:
        self.routing, self.dice = routing, dice
        self.into: dict[str, str] = {}
        self.stages: dict[str, str] = {}

    def person(self, name: str) -> str:
        while name in self.into:
            name = self.into[name]
        return name

    async def step(self, number: int) -> None:
        """Something that happens to one of them."""
        who, now = self.person(self.dice.choice(NAMES)), self.routing.clock.now()
        match self.dice.randrange(5):
            case 0 | 1:
                stage = self.dice.choice(STAGES)
                if stage != self.stages.get(who):
                    await self.routing.service.deliver(entered(who, stage, self.stages.get(who), at=now))
                    self.stages[who] = stage
            case 2:
                what = self.dice.choice(ANSWERS)
                await self.routing.answer(who, what, **({} if what == "accept" else {"reason": "as it is"}))
            case 3 if (other := self.person(self.dice.choice(NAMES))) != who:
                fact = merged(who, into=other, at=now)
                await self.routing.service.deliver(fact.model_copy(update={"event_id": EventId(f"merged-{number}")}))
                self.into[who] = other
            case _ if self.into:
                name = self.dice.choice(sorted(self.into))
                fact_of_parting = unmerged(name, into=self.into.pop(name), at=now)
                again = fact_of_parting.model_copy(update={"event_id": EventId(f"unmerged-{number}")})
                await self.routing.service.deliver(again)
            case _:
                await self.routing.pass_time(timedelta(minutes=61))

    async def check(self) -> None:
        """Who goes by the highest revision of each assignment, and of a person's by the highest, has what stands."""
        rows = (await self.routing.client.get("/v1/assignments", params={"limit": 200})).json()["items"]
        told: dict[AssignmentId, LeadAssigned] = {}
        for fact in sorted(await self.routing.service.told(LeadAssigned), key=lambda fact: fact.revision):
            told[fact.assignment_id] = fact
        persons = {lead_id(name): lead_id(self.person(name)) for name in NAMES}
        newest: dict[LeadId, AssignmentId] = {}
        for fact in sorted(told.values(), key=lambda fact: fact.revision):
            newest[persons[fact.lead_id]] = fact.assignment_id
        for row in rows:
            assert persons[told[row["assignment_id"]].lead_id] == row["lead_id"]
            assert not row["current"] or newest[row["lead_id"]] == row["assignment_id"]
        assert all(kept == counted for kept, counted in (await self.routing.counted_loads()).values())


@pytest.mark.parametrize("seed", [1, 4, 7])
async def test_readers_know_whose_leads_are_whatever_happens_to_them(routing: Routing, seed: int) -> None:
    for name in ("ann", "bob", "cid"):
        await routing.hire(name)
    await routing.service.deliver(*(captured(name) for name in NAMES))
    walk = Walk(routing, random.Random(seed))
    for number in range(STEPS):
        routing.clock.move(timedelta(seconds=7))
        await walk.step(number)
        await walk.check()
