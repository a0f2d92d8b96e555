"""Who is asked to come later comes later: 429 to everything loses nothing, and is not answered by more of the same."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from services.nurture.channels.email import EmailChannel
from services.nurture.channels.provider import Providers
from services.nurture.parts import make_parts
from services.nurture.sending.domain import TRIES
from services.nurture.sending.handlers import Sender
from services.routing.webhooks.domain import MOST_FAILURES, Outgoing
from services.routing.webhooks.handlers import AT_ONCE, Deliverer
from shared.settings import Settings
from shared.testing import harness, make_settings
from tests.service.local_server import Asked, LocalServer, reply, serving
from tests.service.nurture_world import Facts, World, open_inbox
from tests.service.provider_world import open_provider
from tests.service.routing_support import Routing, routing_service
from tests.service.test_nurture_providers import provider_at
from tests.service.test_routing_webhooks import deliveries, make, tell, until_done
from throughline.services import service_code

PEOPLE = 5
HANDS = 2
HOUR = timedelta(hours=1)


@pytest.fixture
async def routing(database_url: str) -> AsyncIterator[Routing]:
    settings = make_settings(database_url, outbound_private_hosts=frozenset({"127.0.0.1"}))
    async with routing_service(settings) as service:
        yield service


async def test_f34_a_provider_at_its_limit_is_left_alone_as_long_as_it_asks_and_gets_each_message_once(
    settings: Settings,
) -> None:
    clock = [0.0]
    async with (
        open_inbox() as inbox,
        open_provider("sendgrid") as provider,
        harness(service_code("nurture"), settings) as nurture,
    ):
        parts = make_parts(nurture.consumer_runtime)
        parts = replace(parts, settings=parts.settings.model_copy(update={"send_at_once": HANDS}))
        by_http = Providers([provider_at("sendgrid", provider.url)], lambda: clock[0])
        sender = Sender(parts, {"email": EmailChannel(parts, parts.renderer, by_http)})
        world = World(nurture, inbox, Facts(nurture.runtime), [sender])
        await world.feeds_are_fresh()
        people = [f"p{number}@example.com" for number in range(PEOPLE)]
        for email in people:
            await world.arrives(email)
        provider.mode = "busy"
        for _ in range(2):
            before = provider.asked
            await world.send()
            assert before < provider.asked <= before + HANDS, "it asks to be left alone"
            await world.time_passes(HOUR)
            await world.execute("UPDATE messages SET attempts = $1", TRIES)  # as after hours of it
            clock[0] += HOUR.total_seconds()
        assert {tuple(await world.states(email)) for email in people} == {("planned",)}
        provider.mode = "ok"
        await world.send()
        assert Counter(one.recipient for one in provider.accepted) == dict.fromkeys(people, 1)
        assert {tuple(await world.states(email)) for email in people} == {("sent",)}


async def test_an_endpoint_at_its_limit_is_left_alone_by_all_that_waits_for_it_and_is_not_taken_for_sick(
    routing: Routing,
) -> None:
    limited = True

    async def respond(asked: Asked) -> bytes:
        return reply(429, retry_after="60") if limited else reply(204)

    server = LocalServer(respond=respond)
    async with serving(server) as address:
        endpoint_id = (await make(routing, address))["endpoint_id"]
        names = [f"d{number}" for number in range(MOST_FAILURES + 2 * AT_ONCE)]
        await tell(routing, *(Outgoing(name, endpoint_id, "a", b"{}") for name in names))
        deliverer = Deliverer(routing.service.consumer_runtime)
        for turn in range(1, 8):
            await until_done(deliverer)
            assert len(server.asked) == turn * AT_ONCE
            wait = await deliverer.run()
            assert (len(server.asked), wait) == (turn * AT_ONCE, timedelta(minutes=1))
            routing.clock.move(timedelta(minutes=1))
        limited = False
        before = len(server.asked)
        for _ in range(10):
            await until_done(deliverer)
            routing.clock.move(HOUR)
        taken = Counter(asked.headers["webhook-id"] for asked in server.asked[before:])
        shown = await deliveries(routing, endpoint_id)
    assert taken == dict.fromkeys(names, 1)
    assert {one["state"] for one in shown.values()} == {"delivered"}
