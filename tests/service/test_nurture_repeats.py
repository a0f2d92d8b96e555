"""Messages of which nobody knows, at a provider that takes the same message once: it is handed them again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest_asyncio

from services.nurture.channels.email import EmailChannel
from services.nurture.channels.provider import Provider, Providers
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from services.nurture.sending.reconciling import Reconciler
from services.nurture.sending.resending import Resender
from shared.settings import Settings
from shared.testing import eventually
from tests.service.nurture_world import HELLO, World, open_world
from tests.service.provider_world import ProviderServer, name_of, open_provider
from tests.service.test_nurture_providers import provider_at

ANN, BEN, CAT = "ann@example.com", "ben@example.com", "cat@example.com"


class Hands:
    """What a worker has to send and to ask with, at these providers."""

    def __init__(self, world: World, *providers: Provider[Any]) -> None:
        parts = make_parts(world.nurture.consumer_runtime)
        channels = {"email": EmailChannel(parts, parts.renderer, Providers(providers))}
        self.sender = Sender(parts, channels)  # type: ignore[arg-type]  # a channel of email
        self.resender = Resender(parts, channels, self.sender)  # type: ignore[arg-type]
        self.reconciler = Reconciler(parts, channels, self.resender)  # type: ignore[arg-type]
        world.senders = [self.sender]


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_world(settings) as made:
        yield made


@pytest_asyncio.fixture
async def resend() -> AsyncIterator[ProviderServer]:
    async with open_provider("resend") as server:
        yield server


async def look_now(world: World, hands: Hands) -> None:
    await world.execute("UPDATE messages SET look_up_at = now() WHERE state = 'unknown'")
    await hands.reconciler.run()


async def test_what_a_provider_with_keys_may_have_is_handed_over_again_until_it_says_so(
    world: World, resend: ProviderServer
) -> None:
    """One it has not taken, one it has, and one whose words have changed since; nobody gets two."""
    hands = Hands(world, provider_at("resend", resend.url))
    for email, mode in ((ANN, "broken"), (BEN, "fails_after_accepting"), (CAT, "fails_after_accepting")):
        resend.mode = mode  # type: ignore[assignment]  # both are modes
        await world.arrives(email, first_name="Bo")
        await world.send()
    resend.mode = "broken"
    await look_now(world, hands)
    assert [await world.states(email) for email in (ANN, BEN, CAT)] == [["unknown"]] * 3
    resend.mode = "ok"
    await world.tell(await world.facts.captured(CAT, 2, first_name="Catherine"))
    await look_now(world, hands)
    assert [await world.states(email) for email in (ANN, BEN, CAT)] == [["sent"]] * 3
    assert sorted(one.recipient for one in resend.accepted) == [ANN, BEN, CAT]
    (ben,) = await world.messages(BEN)
    assert (ben["provider"], ben["provider_id"]) == ("resend", name_of(resend.accepted[0]))


async def test_the_ledger_names_the_only_provider_before_it_is_called(world: World, resend: ProviderServer) -> None:
    """So that a message of a sender that was killed can be handed to that one again."""
    hands = Hands(world, provider_at("resend", resend.url))
    resend.go_on.clear()
    await world.arrives(ANN)
    sending = asyncio.create_task(world.send())
    await eventually(lambda: len(resend.accepted) == 1)
    assert [message["provider"] for message in await world.messages(ANN)] == ["resend"]
    await world.time_passes(timedelta(minutes=10))
    await hands.sender._runs.give_up_dead_claims()
    assert await world.states(ANN) == ["unknown"]
    resend.go_on.set()
    await look_now(world, hands)
    assert await world.states(ANN) == ["sent"]
    await sending
    assert (await world.states(ANN), len(resend.accepted)) == (["sent"], 1)


async def test_nothing_is_handed_over_again_that_may_not_be_sent_now_or_may_be_taken_twice(
    world: World, resend: ProviderServer
) -> None:
    hands = Hands(world, provider_at("resend", resend.url))
    resend.mode = "broken"
    for email in (ANN, BEN, CAT):
        await world.arrives(email)
    await world.send()
    resend.mode, asked = "ok", resend.asked
    await world.tell(world.facts.consent(ANN, "denied"))
    old = "UPDATE messages SET claimed_at = claimed_at - interval '1 day' WHERE lead_id = $1"
    await world.execute(old, world.facts.lead_id(BEN))
    other = "UPDATE messages SET provider = 'ses' WHERE lead_id = $1"
    await world.execute(other, world.facts.lead_id(CAT))
    await look_now(world, hands)
    assert [await world.states(email) for email in (ANN, BEN, CAT)] == [["unknown"]] * 3
    assert resend.asked == asked
    async with open_provider("sendgrid") as sendgrid:
        hands = Hands(world, provider_at("sendgrid", sendgrid.url))
        sendgrid.mode = "broken"
        await world.arrives("dot@example.com")
        await world.send()
        sendgrid.mode = "ok"
        await look_now(world, hands)
        assert (await world.states("dot@example.com"), sendgrid.accepted) == (["unknown"], [])


async def test_what_is_sent_again_is_the_variant_that_it_was(world: World, resend: ProviderServer) -> None:
    hands = Hands(world, provider_at("resend", resend.url))
    variants = [
        {"id": name, "weight": 50, "template": {"subject": f"Variant {name}", "text": "Hello"}} for name in ("a", "b")
    ]
    steps = [{"id": "one", "send": HELLO, "experiment": {"id": "words", "variants": variants}}]
    await world.saves(trigger="event.type == 'demo_requested'", goal=None, exit=None, steps=steps)
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    await world.tell(world.facts.form(ANN, kind="demo_requested"))
    resend.mode = "broken"
    await world.send()
    varied = [message for message in await world.messages(ANN) if message["step_id"] == "one"]
    resend.mode = "ok"
    await look_now(world, hands)
    assert f"Variant {varied[0]['variant']}" in [one.fields["subject"] for one in resend.accepted]
