"""Clicks on links in text messages: short addresses that nobody can make, told and counted like those in emails."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from services.nurture.channels.provider import Providers
from services.nurture.channels.text import TextChannel
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from services.nurture.tracking.links import Links
from shared.events import ConsentChanged, TouchRecorded
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import Facts, World, open_inbox
from tests.service.provider_world import ProviderServer, open_provider
from tests.service.test_nurture_providers import provider_at
from throughline.services import service_code

ANN, PHONE = "ann@example.com", "+4915112345678"
BROWSER = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1"
SHORT = re.compile(r"https://acme\.link/go/([a-z2-7]{20})(?![a-z2-7])")


@pytest_asyncio.fixture
async def texts(settings: Settings) -> AsyncIterator[tuple[World, ProviderServer]]:
    """Nurture with Twilio for SMS and WhatsApp, and short addresses of its own."""
    async with (
        open_inbox() as inbox,
        open_provider("twilio") as twilio,
        harness(service_code("nurture"), settings) as nurture,
    ):
        parts = make_parts(nurture.consumer_runtime)
        secret, public = nurture.runtime.secrets.links, nurture.settings.public_url
        parts = replace(parts, links=Links(secret, public, short_url="https://acme.link/go/"))
        channel = TextChannel(parts, parts.renderer, Providers([provider_at("twilio", twilio.url)]))
        world = World(nurture, inbox, Facts(nurture.runtime), [Sender(parts, {"sms": channel, "whatsapp": channel})])
        await world.feeds_are_fresh()
        yield world, twilio


async def sent(texts: tuple[World, ProviderServer], *steps: dict[str, Any], **more: Any) -> tuple[str, list[str]]:
    """The sequence, and what Ann gets of it."""
    world, twilio = texts
    sequence_id = await world.saves(
        trigger="event.type == 'form_submitted'", exit=None, goal=None, steps=list(steps), **more
    )
    await world.tell(await world.facts.captured(ANN, first_name="Ann https://evil.example/?x", phone=PHONE))
    for channel in ("sms", "whatsapp"):
        await world.tell(world.facts.consent(ANN, channel=channel))
    await world.tell(world.facts.form(ANN))
    await world.send()
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 minute'")
    return sequence_id, [each.fields.get("Body") or each.fields["ContentVariables"] for each in twilio.accepted]


def step(text: str, channel: str = "sms", **template: Any) -> dict[str, Any]:
    return {"id": channel, "send": {"channel": channel, "template": {"text": text, **template}}}


async def follow(world: World, token: str, agent: str = BROWSER, method: str = "GET") -> tuple[int, str | None]:
    headers = {"user-agent": agent, "authorization": ""}
    answer = await world.nurture.client.request(method, f"/s/{token}", headers=headers)
    return answer.status_code, answer.headers.get("location")


async def report(world: World, sequence_id: str) -> dict[str, Any]:
    answer = await world.nurture.client.get(f"/v1/sequences/{sequence_id}/report")
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["rows"]
    return dict(row)


async def test_a_click_in_an_sms_is_counted_raw_and_filtered(texts: tuple[World, ProviderServer]) -> None:
    world, _ = texts
    words = "Hi {{ lead.first_name }}: {{ site_url }}/a?b=1, https://acme.example/{{ lead.email }}. STOP ends it"
    sequence_id, (body,) = await sent(texts, step(words), utm={"campaign": "{{ sequence.name }}"})
    one, two = SHORT.findall(body)
    assert SHORT.sub("*", body) == "Hi Ann https://evil.example/?x&utm_campaign=Test: *, *. STOP ends it"
    assert await follow(world, one, "WhatsApp/2.23.20.0") == (302, "http://127.0.0.1:8080/a?b=1&utm_campaign=Test")
    assert await follow(world, one, method="HEAD") == (302, "http://127.0.0.1:8080/a?b=1&utm_campaign=Test")
    counted = await report(world, sequence_id)
    assert (counted["clicked"], counted["clicked_raw"]) == (0, 1)
    await world.execute("UPDATE responses SET at = at - interval '1 minute', seen_at = seen_at - interval '1 minute'")
    for _ in range(2):
        assert await follow(world, two.upper()) == (302, "https://acme.example/ann@example.com?utm_campaign=Test")
    counted = await report(world, sequence_id)
    assert (counted["sent"], counted["clicked"], counted["clicked_raw"]) == (1, 1, 1), "a message counts once"
    told = [touch for touch in await world.nurture.told(TouchRecorded) if touch.type == "sms_clicked"]
    assert [(each.page, each.automated, each.channel, each.medium) for each in told] == [
        ("http://127.0.0.1:8080/a", True, "SMS", "sms"),
        ("https://acme.example/ann@example.com", False, "SMS", "sms"),
    ]
    (message,) = await world.messages(ANN)
    explained = (await world.nurture.client.get(f"/v1/messages/{message['message_id']}/explain")).json()
    assert (explained["raw"]["clicks"], explained["filtered"]["clicks"]) == (2, 1)
    timeline = (await world.nurture.client.get("/v1/timeline", params={"email": ANN})).json()["items"]
    assert [entry["kind"] for entry in timeline].count("sms_clicked") == 2


async def test_parameters_of_approved_whatsapp_templates_are_counted(texts: tuple[World, ProviderServer]) -> None:
    world, twilio = texts
    approved = {
        "name": "HX1",
        "language": "en",
        "parameters": ["Hello", "https://acme.example/a", "https://acme.example/b"],
    }
    ping = {"id": "ping", "send": {"channel": "whatsapp", "template": approved}}
    sequence_id, (variables,) = await sent(texts, ping)
    assert len(twilio.accepted) == 1
    targets = [await follow(world, token) for token in SHORT.findall(variables)]
    assert targets == [(302, "https://acme.example/a"), (302, "https://acme.example/b")]
    (first, second) = [touch for touch in await world.nurture.told(TouchRecorded) if touch.type == "whatsapp_clicked"][
        :2
    ]
    assert (first.channel, second.medium) == ("WhatsApp", "whatsapp")
    assert (await report(world, sequence_id))["clicked_raw"] == 1


async def test_following_every_link_of_a_text_at_once_is_a_machines(texts: tuple[World, ProviderServer]) -> None:
    world, _ = texts
    sequence_id, (body,) = await sent(texts, step("https://acme.example/a https://acme.example/b"))
    for token in SHORT.findall(body):
        await follow(world, token)
    counted = await report(world, sequence_id)
    assert (counted["clicked"], counted["clicked_raw"]) == (0, 1)


@pytest.mark.parametrize("tracked", [True, False])
async def test_a_template_may_keep_its_links_as_they_are_written(
    texts: tuple[World, ProviderServer], tracked: bool
) -> None:
    _, (body,) = await sent(texts, step("See https://acme.example/a. STOP ends it", tracked=tracked))
    assert ("https://acme.example/a" in body, bool(SHORT.search(body))) == (not tracked, tracked)


async def test_a_short_address_that_is_not_ours_leads_nowhere(texts: tuple[World, ProviderServer]) -> None:
    world, _ = texts
    _, (body,) = await sent(texts, step("See https://acme.example/a"))
    (token,) = SHORT.findall(body)
    changed = [f"{token[:at]}{'a' if letter != 'a' else 'b'}{token[at + 1 :]}" for at, letter in enumerate(token[:-1])]
    for other in (*changed, token[:-1], f"{token}a", "a" * 20, "1" * 20, "%00" * 7, "https://evil.example"):
        assert (await follow(world, other))[0] == 404, other
    await world.tell(world.facts.erased(ANN))
    assert (await follow(world, token))[0] == 404, "nothing is known any more of somebody who was erased"
    assert not [touch for touch in await world.nurture.told(TouchRecorded) if touch.type == "sms_clicked"]


async def test_who_unsubscribes_by_an_sms_gets_none_any_more(texts: tuple[World, ProviderServer]) -> None:
    world, twilio = texts
    _, (body,) = await sent(texts, step("No more: {{ unsubscribe_url }}"))
    (address,) = re.findall(r"/nurture(/u/[\w-]+)", body)
    answer = await world.nurture.client.post(
        address, data={"List-Unsubscribe": "One-Click"}, headers={"authorization": ""}
    )
    assert answer.status_code == 200
    denied = [fact for fact in await world.nurture.told(ConsentChanged) if fact.origin == "nurture"]
    assert [(fact.channel, fact.state) for fact in denied] == [("sms", "denied")]
    await world.saves(trigger="event.type == 'demo_requested'", exit=None, goal=None, steps=[step("More")])
    await world.tell(world.facts.form(ANN, kind="demo_requested"))
    await world.send()
    assert len(twilio.accepted) == 1
    assert (await world.messages(ANN))[-1]["reason"] == "unsubscribed"
