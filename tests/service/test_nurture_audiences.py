"""Retargeting lists: who is in a segment and allows it, told as hashes, taken out when they leave or refuse."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio
from standardwebhooks.webhooks import Webhook

from services.nurture.audiences.handlers import Keeper, on_heard
from services.nurture.parts import make_parts
from services.nurture.people import queries as people
from shared.events import SegmentEntered, SegmentLeft
from shared.settings import Settings
from shared.testing import harness
from tests.service.local_server import Asked, LocalServer, reply, serving
from tests.service.nurture_world import Facts, World, open_inbox
from tests.service.test_nurture_segments import moved
from throughline.services import service_code

ANN, BEN, CAT = "ann@example.com", "ben@example.com", "cat@example.com"
PHONE = "+4915112345678"


@dataclass
class Advertiser:
    """Keeps the list that it is told of."""

    secret: str = ""
    answer: bytes = field(default_factory=reply)
    listed: set[str] = field(default_factory=set)
    deliveries: list[str] = field(default_factory=list)

    async def respond(self, asked: Asked) -> bytes:
        data: dict[str, Any] = Webhook(self.secret).verify(asked.body, asked.headers)["data"]
        self.deliveries.append(asked.headers["webhook-id"])
        assert b"@" not in asked.body
        if self.deliveries.count(asked.headers["webhook-id"]) > 1:
            return self.answer
        for hashes in data["add"].values():
            self.listed |= set(hashes)
        for hashes in data["remove"].values():
            self.listed -= set(hashes)
        return self.answer


@dataclass
class ListWorld:
    world: World
    advertiser: Advertiser
    url: str
    keeper: Keeper

    async def keeps_up(self) -> None:
        await self.world.execute("UPDATE audiences SET due_at = clock_timestamp() - interval '1 second'")
        await self.keeper.run()

    async def creates(self, **more: Any) -> dict[str, Any]:
        told = {"name": "Ads", "url": self.url, "segment_id": "eu", **more}
        answer = await self.world.nurture.client.post("/v1/audiences", json=told)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        self.advertiser.secret = made["secret"]
        return made

    async def seen(self, audience_id: str) -> dict[str, Any]:
        answer = await self.world.nurture.client.get(f"/v1/audiences/{audience_id}")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found


@pytest_asyncio.fixture
async def lists(settings: Settings) -> AsyncIterator[ListWorld]:
    local = settings.model_copy(update={"outbound_private_hosts": frozenset({"127.0.0.1"})})
    advertiser = Advertiser()
    async with (
        open_inbox() as inbox,
        serving(LocalServer(respond=advertiser.respond)) as url,
        harness(service_code("nurture"), local) as nurture,
    ):
        world = World(nurture, inbox, Facts(nurture.runtime), [])
        await world.feeds_are_fresh()
        yield ListWorld(world, advertiser, url, Keeper(make_parts(nurture.consumer_runtime)))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def test_a_list_follows_the_segment_and_what_people_allow(lists: ListWorld) -> None:
    world, advertiser = lists.world, lists.advertiser
    ids = {email: world.facts.lead_id(email) for email in (ANN, BEN, CAT)}
    for email in (ANN, BEN, CAT):
        await world.tell(await world.facts.captured(email, phone=PHONE if email == ANN else None))
        await world.tell(moved(SegmentEntered, ids[email], "eu", 1))
    for email in (ANN, BEN):
        await world.tell(world.facts.consent(email))
    made = await lists.creates(identifiers=["email", "phone"])
    await lists.keeps_up()
    assert advertiser.listed == {sha(ANN), sha(BEN)}, "Cat has not allowed it, Ann not by phone"
    await lists.keeps_up()
    assert len(advertiser.deliveries) == 1, "nothing has changed"
    await world.tell(world.facts.consent(ANN, channel="sms"), world.facts.consent(CAT))
    await lists.keeps_up()
    assert advertiser.listed == {sha(ANN), sha(PHONE), sha(BEN), sha(CAT)}
    await world.tell(moved(SegmentLeft, ids[CAT], "eu", 2), world.facts.consent(ANN, "denied"))
    await world.tell(world.facts.erased(BEN))
    await lists.keeps_up()
    assert advertiser.listed == {sha(PHONE)}
    seen = await lists.seen(made["audience_id"])
    assert (seen["people"], seen["waiting"], seen["state"]) == (1, 0, "active")
    answer = await world.nurture.client.delete(f"/v1/audiences/{made['audience_id']}")
    assert answer.json()["state"] == "ending"
    await lists.keeps_up()
    assert advertiser.listed == set()
    gone = await world.nurture.client.get(f"/v1/audiences/{made['audience_id']}")
    assert gone.status_code == 404


async def test_what_was_not_taken_is_told_again_and_a_refusal_suspends(lists: ListWorld) -> None:
    world, advertiser = lists.world, lists.advertiser
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    await world.tell(moved(SegmentEntered, world.facts.lead_id(ANN), "eu", 1))
    made = await lists.creates()
    advertiser.answer = reply(503)
    await lists.keeps_up()
    assert (await lists.seen(made["audience_id"]))["waiting"] == 1
    await world.tell(moved(SegmentLeft, world.facts.lead_id(ANN), "eu", 2))
    advertiser.answer = reply(200)
    await lists.keeps_up()
    assert advertiser.listed == set(), "who may have been told of Ann is told that she left"
    await world.tell(moved(SegmentEntered, world.facts.lead_id(ANN), "eu", 3))
    advertiser.answer = reply(403)
    await lists.keeps_up()
    seen = await lists.seen(made["audience_id"])
    assert (seen["state"], seen["reason"]) == ("suspended", "answered 403")
    tries = len(advertiser.deliveries)
    await lists.keeps_up()
    assert len(advertiser.deliveries) == tries
    advertiser.answer = reply(200)
    await world.nurture.client.post(f"/v1/audiences/{made['audience_id']}:resume")
    await lists.keeps_up()
    assert advertiser.listed == {sha(ANN)}


async def test_who_leaves_for_the_second_time_is_taken_out_by_a_keeper_who_heeds_each_webhook_once(
    lists: ListWorld,
) -> None:
    world, advertiser = lists.world, lists.advertiser
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    await lists.creates()
    for number in range(4):
        kind = SegmentEntered if number % 2 == 0 else SegmentLeft
        await world.tell(moved(kind, world.facts.lead_id(ANN), "eu", number + 1))
        await lists.keeps_up()
    assert len(advertiser.deliveries) == len(set(advertiser.deliveries)) == 4
    assert advertiser.listed == set()


async def test_a_refusal_that_is_told_while_somebody_enters_counts(lists: ListWorld) -> None:
    world, advertiser = lists.world, lists.advertiser
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    await lists.creates()
    refusal = world.facts.consent(ANN, "denied")
    async with world.nurture.consumer_runtime.database.transaction() as tx:
        await people.save_consents(tx.connection, [refusal])
        await on_heard([refusal], tx)
        await world.tell(moved(SegmentEntered, world.facts.lead_id(ANN), "eu", 1))
        await lists.keeps_up()
        assert advertiser.listed == {sha(ANN)}, "nobody can know of what is not committed"
    await world.execute("UPDATE audience_members SET looked_at = looked_at - interval '1 minute'")
    await lists.keeps_up()
    assert advertiser.listed == set()


async def test_bad_lists_are_refused_with_the_place(lists: ListWorld) -> None:
    good = {"name": "Ads", "url": "https://example.com/x", "segment_id": "eu"}
    for wrong, place in (
        ({"url": "http://10.0.0.1/"}, "/url"),
        ({"purpose": "transactional"}, "/purpose"),
        ({"identifiers": []}, "/identifiers"),
        ({"identifiers": ["name"]}, "/identifiers/0"),
        ({"secret": "whsec_short"}, "/secret"),
        ({"segment_id": ""}, "/segment_id"),
    ):
        answer = await lists.world.nurture.client.post("/v1/audiences", json={**good, **wrong})
        assert answer.status_code == 422
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [place]
