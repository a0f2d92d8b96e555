"""Webhooks to other systems arrive signed, in order, again when they were not taken, and never at a wrong address."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from services.routing.webhooks.domain import Outgoing
from services.routing.webhooks.handlers import Deliverer, enqueue
from shared.events import PersonKeyCreated
from shared.testing import make_settings
from tests.service.local_server import Asked, LocalServer, reply, serving
from tests.service.routing_support import Routing, erased, lead_id, routing_service


@pytest.fixture
async def routing(database_url: str) -> AsyncIterator[Routing]:
    settings = make_settings(database_url, outbound_private_hosts=frozenset({"127.0.0.1"}))
    async with routing_service(settings) as service:
        yield service


async def make(routing: Routing, url: str, **fields: Any) -> dict[str, Any]:
    """A new endpoint."""
    answer = await routing.client.post("/v1/webhooks", json={"url": url, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def tell(routing: Routing, *outgoing: Outgoing) -> None:
    """Enqueue in one transaction."""
    runtime = routing.service.consumer_runtime
    async with runtime.database.transaction() as tx:
        await enqueue(tx.connection, runtime.keys, outgoing, routing.clock.now())


async def deliver(routing: Routing, by: timedelta = timedelta()) -> None:
    """Let time pass and deliver what is due."""
    routing.clock.move(by)
    await until_done(Deliverer(routing.service.consumer_runtime))


async def until_done(deliverer: Deliverer) -> None:
    """Rounds until nothing is under way."""
    await deliverer.run()
    while deliverer.is_busy:
        await deliverer.run()


async def deliveries(routing: Routing, endpoint_id: str) -> dict[str, dict[str, Any]]:
    """What the log says, by delivery."""
    answer = await routing.client.get(f"/v1/webhooks/{endpoint_id}/deliveries?limit=200")
    assert answer.status_code == 200, answer.text
    return {item["delivery_id"]: item for item in answer.json()["items"]}


def ids(server: LocalServer) -> list[str]:
    """The webhook ids in the order they came."""
    return [asked.headers["webhook-id"] for asked in server.asked]


def passes(secret: str, asked: Asked) -> bool:
    """Whether the specification's own library makes the same signature."""
    stamped = float(asked.headers["webhook-timestamp"])
    at = datetime.fromtimestamp(stamped, UTC)
    expected = Webhook(secret).sign(asked.headers["webhook-id"], at, asked.body.decode())
    return expected in asked.headers["webhook-signature"].split(" ")


async def test_a_secret_is_replaced_without_a_delivery_that_does_not_verify(routing: Routing) -> None:
    server = LocalServer()
    async with serving(server) as address:
        made = await make(routing, f"{address}/hook")
        place = f"/v1/webhooks/{made['endpoint_id']}"
        await routing.client.post(f"{place}:test")
        await deliver(routing)
        added = (await routing.client.post(f"{place}/secrets")).json()
        assert (await routing.client.post(f"{place}/secrets")).status_code == 409
        await routing.client.post(f"{place}:test")
        await deliver(routing)
        assert (await routing.client.delete(f"{place}/secrets/1")).status_code == 204
        assert (await routing.client.delete(f"{place}/secrets/2")).status_code == 409
        await routing.client.post(f"{place}:test")
        await deliver(routing)
    old, new = made["secret"], added["secret"]
    assert [(passes(old, one), passes(new, one)) for one in server.asked] == [
        (True, False),
        (True, True),
        (False, True),
    ]
    assert orjson.loads(server.asked[0].body)["type"] == "throughline.webhook.tested"
    assert "secret" not in (await routing.client.get(place)).json()


async def test_what_is_not_taken_is_tried_again_for_a_day_under_one_id(routing: Routing) -> None:
    server = LocalServer([reply(500)])
    async with serving(server) as address:
        made = await make(routing, address)
        await tell(routing, Outgoing("one", made["endpoint_id"], "a", b"{}", "lead"))
        for _ in range(30):
            await deliver(routing, timedelta(hours=1))
        found = (await deliveries(routing, made["endpoint_id"]))["one"]
        shown = (await routing.client.get(f"/v1/webhooks/{made['endpoint_id']}/deliveries/one")).json()
        await routing.client.post(f"/v1/webhooks/{made['endpoint_id']}/deliveries/one:retry")
        server.answers = [reply(204)]
        await deliver(routing)
        retried = (await deliveries(routing, made["endpoint_id"]))["one"]
    assert (found["state"], found["attempts"], found["status"]) == ("failed", 10, 500)
    assert [one["n"] for one in shown["tries"]] == list(range(1, 11))
    assert ids(server) == ["one"] * 11
    assert (retried["state"], retried["attempts"]) == ("delivered", 1)


async def test_an_endpoint_says_when_to_come_again_and_when_never(routing: Routing) -> None:
    server = LocalServer([reply(429, retry_after="1800"), reply(200), reply(404), reply(410)])
    async with serving(server) as address:
        made = await make(routing, address)
        endpoint_id = made["endpoint_id"]
        await tell(routing, Outgoing("one", endpoint_id, "a", b"{}"))
        await deliver(routing)
        await deliver(routing, timedelta(minutes=29))
        assert ids(server) == ["one"]
        await deliver(routing, timedelta(minutes=1))
        for name in ("two", "three", "four"):
            await tell(routing, Outgoing(name, endpoint_id, "a", b"{}"))
            await deliver(routing)
        states = {name: one["state"] for name, one in (await deliveries(routing, endpoint_id)).items()}
        ended = (await routing.client.get(f"/v1/webhooks/{endpoint_id}")).json()
    assert ids(server) == ["one", "one", "two", "three"]
    assert states == {"one": "delivered", "two": "failed", "three": "failed", "four": "waiting"}
    assert (ended["state"], ended["waiting"]) == ("ended", 1)


async def test_one_lead_is_told_of_in_order_and_holds_up_no_other(routing: Routing) -> None:
    refused = {"a1": 2}

    async def respond(asked: Asked) -> bytes:
        left = refused.get(asked.headers["webhook-id"], 0)
        refused[asked.headers["webhook-id"]] = left - 1
        return reply(500 if left > 0 else 200)

    server = LocalServer(respond=respond)
    async with serving(server) as address:
        endpoint_id = (await make(routing, address))["endpoint_id"]
        names = ("a1", "b1", "a2", "b2", "a3")
        await tell(routing, *(Outgoing(name, endpoint_id, "a", b"{}", name[0]) for name in names))
        await deliver(routing)
        await deliver(routing, timedelta(seconds=12))
        await tell(routing, Outgoing("a4", endpoint_id, "a", b"{}", "a"), Outgoing("a1", endpoint_id, "a", b"!", "a"))
        await deliver(routing, timedelta(minutes=2))
    came = ids(server)
    assert [name for name in came if name[0] == "b"] == ["b1", "b2"]
    assert [name for name in came if name[0] == "a"] == ["a1", "a1", "a1", "a2", "a3", "a4"]
    assert came.index("b2") < came.index("a2")


async def test_what_an_endpoint_missed_for_hours_arrives_in_order_as_soon_as_it_is_back(routing: Routing) -> None:
    server = LocalServer([reply(500)])
    async with serving(server) as address:
        endpoint_id = (await make(routing, address))["endpoint_id"]
        await tell(routing, *(Outgoing(name, endpoint_id, "a", b"{}", name[0]) for name in ("a1", "b1", "a2", "b2")))
        for _ in range(60):
            await deliver(routing, timedelta(minutes=5))
        away = (await routing.client.get(f"/v1/webhooks/{endpoint_id}")).json()
        missed, server.answers = len(server.asked), [reply()]
        await tell(routing, Outgoing("c1", endpoint_id, "a", b"{}", "c"))
        await deliver(routing)
        back = (await routing.client.get(f"/v1/webhooks/{endpoint_id}")).json()
    assert (away["state"], away["reason"], back["reason"], back["waiting"]) == ("active", "answered 500", None, 0)
    came = ids(server)[missed:]
    assert came[0] == "c1"
    assert sorted(came[1:]) == ["a1", "a2", "b1", "b2"]
    assert [name for name in came if name[0] == "a"] == ["a1", "a2"]
    assert [name for name in came if name[0] == "b"] == ["b1", "b2"]


async def test_a_slow_endpoint_is_waited_for_by_no_other(routing: Routing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.routing.webhooks.handlers.PATIENCE_S", 3_600)
    answering = asyncio.Event()

    async def slow(asked: Asked) -> bytes:
        await answering.wait()
        return reply()

    server, sleepy = LocalServer(), LocalServer(respond=slow)
    deliverer = Deliverer(routing.service.consumer_runtime)
    async with serving(server) as address, serving(sleepy) as other_address:
        fast, other = [(await make(routing, url))["endpoint_id"] for url in (address, other_address)]
        for name in ("one", "two"):
            await tell(routing, Outgoing(name, fast, "a", b"{}"), Outgoing(name, other, "a", b"{}"))
            while name not in ids(server):
                await deliverer.run()
        assert deliverer.is_busy
        answering.set()
        await until_done(deliverer)
    assert (ids(server), sorted(ids(sleepy))) == (["one", "two"], ["one", "two"])


async def test_a_sick_endpoint_is_suspended_and_gets_what_was_kept_when_it_is_resumed(routing: Routing) -> None:
    server = LocalServer([reply(500)])
    async with serving(server) as address:
        endpoint_id = (await make(routing, address))["endpoint_id"]
        await tell(routing, *(Outgoing(f"d{n}", endpoint_id, "a", b"{}", f"lead{n}") for n in range(60)))
        await deliver(routing)
        await deliver(routing, timedelta(seconds=12))
        sick = (await routing.client.get(f"/v1/webhooks/{endpoint_id}")).json()
        tried = len(server.asked)
        await deliver(routing, timedelta(days=1))
        assert len(server.asked) == tried
        await tell(routing, Outgoing("late", endpoint_id, "a", b"{}"))
        server.answers = [reply()]
        resumed = (await routing.client.post(f"/v1/webhooks/{endpoint_id}:resume")).json()
        await deliver(routing)
        states = Counter(one["state"] for one in (await deliveries(routing, endpoint_id)).values())
        well = (await routing.client.get(f"/v1/webhooks/{endpoint_id}")).json()
    assert (sick["state"], sick["waiting"], 100 <= tried <= 120) == ("suspended", 60, True)
    assert resumed["state"] == "active"
    assert (states, well["failures"]) == (Counter(delivered=61), 0)


async def test_what_waits_for_a_week_is_given_up_and_what_was_settled_forgotten(routing: Routing) -> None:
    endpoint_id = (await make(routing, "https://example.com/hook"))["endpoint_id"]
    await routing.client.post(f"/v1/webhooks/{endpoint_id}:suspend", json={"reason": "moving house"})
    await tell(routing, Outgoing("one", endpoint_id, "a", b"{}"))
    routing.clock.move(timedelta(days=7, seconds=1))
    await Deliverer(routing.service.consumer_runtime).clean_up()
    assert [one["state"] for one in (await deliveries(routing, endpoint_id)).values()] == ["dropped"]
    routing.clock.move(timedelta(days=7, seconds=1))
    await Deliverer(routing.service.consumer_runtime).clean_up()
    assert await deliveries(routing, endpoint_id) == {}


async def test_two_deliverers_share_the_work_and_repeat_none_of_it(routing: Routing) -> None:
    server = LocalServer()
    async with serving(server) as address:
        endpoint_id = (await make(routing, address))["endpoint_id"]
        await tell(routing, *(Outgoing(f"d{n}", endpoint_id, "a", b"{}", f"lead{n % 7}") for n in range(70)))
        both = [Deliverer(routing.service.consumer_runtime), Deliverer(routing.service.runtime)]
        while len(server.asked) < 70:
            await asyncio.gather(*(until_done(each) for each in both))
        await asyncio.gather(*(until_done(each) for each in both))
    assert Counter(ids(server)) == Counter(f"d{n}" for n in range(70))
    for lead in range(7):
        mine = [int(name[1:]) for name in ids(server) if int(name[1:]) % 7 == lead]
        assert mine == sorted(mine)


async def test_nothing_goes_on_behind_a_deliverer_that_is_stopped(routing: Routing) -> None:
    endpoint_id = (await make(routing, "https://example.com/hook"))["endpoint_id"]
    await tell(routing, Outgoing("one", endpoint_id, "a", b"{}"))
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(*call: object) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(Deliverer(routing.service.consumer_runtime, {"webhook": hang}).run())
    await asyncio.wait_for(begun.wait(), 60)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert ended.is_set()


async def test_what_is_sealed_goes_to_nobody_once_the_person_is_erased(routing: Routing) -> None:
    server, lead = LocalServer(), lead_id("person")
    runtime = routing.service.consumer_runtime
    async with serving(server) as address:
        endpoint_id = (await make(routing, address))["endpoint_id"]
        async with runtime.database.transaction() as tx:
            _, (created,) = await runtime.keys.ciphers(tx.connection, [lead], routing.clock.now())
            assert isinstance(created, PersonKeyCreated)
            await runtime.keys.fold_keys(tx.connection, [(lead, created)])
        await tell(routing, Outgoing("one", endpoint_id, "a", b'{"email":"jo@x.at"}', lead, [lead]))
        async with runtime.database.reading() as connection:
            kept = await connection.fetchval("SELECT row_to_json(d)::text FROM webhook_deliveries AS d")
        await deliver(routing)
        await tell(routing, Outgoing("two", endpoint_id, "a", b'{"email":"jo@x.at"}', lead, [lead]))
        await routing.service.deliver(erased("person"))
        await tell(routing, Outgoing("three", endpoint_id, "a", b'{"email":"jo@x.at"}', lead, [lead]))
        await deliver(routing)
    assert "jo@x.at" not in kept
    assert [asked.body for asked in server.asked] == [b'{"email":"jo@x.at"}']
    states = {name: one["state"] for name, one in (await deliveries(routing, endpoint_id)).items()}
    assert states == {"one": "delivered", "two": "dropped"}


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"url": "https://10.0.0.1/"}, "/url"),
    ({"url": "https://169.254.169.254/latest"}, "/url"),
    ({"url": "http://example.com/"}, "/url"),
    ({"url": "ftp://example.com/"}, "/url"),
    ({"url": "https://user:pass@example.com/"}, "/url"),
    ({"url": ""}, "/url"),
    ({}, "/url"),
    ({"url": "https://example.com", "secret": "whsec_c2hvcnQ="}, "/secret"),
    ({"url": "https://example.com", "description": "x" * 201}, "/description"),
    ({"url": "https://example.com", "active": True}, "/active"),
)


async def test_what_cannot_be_is_refused_with_its_place_and_what_is_not_there_is_404(routing: Routing) -> None:
    for body, pointer in WRONG:
        answer = await routing.client.post("/v1/webhooks", json=body)
        assert answer.status_code == 422, answer.text
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    for method, path in (
        ("GET", "/v1/webhooks/none"),
        ("PATCH", "/v1/webhooks/none"),
        ("DELETE", "/v1/webhooks/none"),
        ("POST", "/v1/webhooks/none:resume"),
        ("POST", "/v1/webhooks/none:test"),
        ("POST", "/v1/webhooks/none/secrets"),
        ("GET", "/v1/webhooks/none/deliveries"),
    ):
        answer = await routing.client.request(method, path, json={} if method == "PATCH" else None)
        assert answer.status_code == 404, (method, path, answer.text)
