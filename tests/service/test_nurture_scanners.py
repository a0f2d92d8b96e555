"""Clicks that turn out to be a scanner's are corrected, whatever came first, and a person's click afterwards counts."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest_asyncio

from shared.events import TouchRecorded
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import SEQUENCE, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"}
LINKED = "".join(f'<a href="https://acme.example/{page}">{page}</a>' for page in ("one", "two", "three"))
STEP = {"id": "first", "send": {"channel": "email", "template": {"subject": "Hello", "html": LINKED}}}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        await made.saves(SEQUENCE, steps=[STEP])
        await made.arrives(ANN)
        await made.send()
        await made.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 hour'")
        yield made


def addresses(world: World, kind: str) -> list[str]:
    """Those of one kind in the message with three links."""
    bodies = [message.get_body(("html",)) for _, message in world.inbox.accepted]
    (html,) = [
        text for body in bodies if body is not None and "acme" not in (text := body.get_content()) and ">two<" in text
    ]
    return re.findall(rf"http://127\.0\.0\.1:8080/nurture(/{kind}/[\w-]+)", html)


async def follow(world: World, address: str, **headers: str) -> int:
    answer = await world.nurture.client.get(address, headers={**BROWSER, "authorization": "", **headers})
    return answer.status_code


async def clicks(world: World) -> list[tuple[str, bool, str | None]]:
    """Each touch as it was told last: its page, and whether and why it is a machine's."""
    told = {touch.touch_id: touch for touch in await world.nurture.told(TouchRecorded) if touch.type == "email_clicked"}
    return [((touch.page or "")[-3:], touch.automated, touch.automated_reason) for touch in told.values()]


async def later(world: World, span: str) -> None:
    await world.execute(
        "UPDATE responses SET at = at - $1::text::interval, seen_at = seen_at - $1::text::interval", span
    )


async def test_following_every_link_within_seconds_makes_those_clicks_a_machines(world: World) -> None:
    one, two, three = addresses(world, "c")
    assert [await follow(world, one), await follow(world, two)] == [302, 302]
    assert [automated for _, automated, _ in await clicks(world)] == [False, False]
    assert await follow(world, three) == 302
    why = "every link of the message was followed within 5 s"
    assert await clicks(world) == [("one", True, why), ("two", True, why), ("ree", True, why)]
    corrections = [touch for touch in await world.nurture.told(TouchRecorded) if touch.event_id.endswith(":automated")]
    firsts = {touch.touch_id: touch for touch in reversed(await world.nurture.told(TouchRecorded))}
    assert {touch.occurred_at for touch in corrections} == {touch.occurred_at for touch in firsts.values()}
    await follow(world, two)
    assert len(await clicks(world)) == 4, "the scan still goes on"
    assert all(automated for _, automated, _ in await clicks(world))
    await later(world, "1 minute")
    await follow(world, two)
    await follow(world, two)
    assert (await clicks(world))[4:] == [("two", False, None)], "a person reads it afterwards"


async def test_links_followed_at_once_by_several_processes_are_seen_together(world: World) -> None:
    await asyncio.gather(*(follow(world, address) for address in addresses(world, "c")))
    assert [automated for _, automated, _ in await clicks(world)] == [True] * 3


async def test_reading_one_link_after_the_other_is_a_persons(world: World) -> None:
    for address in addresses(world, "c"):
        await follow(world, address)
        await later(world, "10 seconds")
    assert [automated for _, automated, _ in await clicks(world)] == [False] * 3


async def test_who_follows_the_link_that_nobody_sees_takes_back_the_clicks_before(world: World) -> None:
    one, two, _ = addresses(world, "c")
    (trap,) = addresses(world, "h")
    await follow(world, one)
    await later(world, "2 days")
    await follow(world, two)
    await later(world, "1 minute")
    assert await follow(world, trap) == 204
    why = "the link that nobody sees was followed"
    assert await clicks(world) == [("one", False, None), ("two", True, why)], "two days ago is another visit"
    assert await follow(world, trap[:-2] + "AA") == 404
    assert await follow(world, trap.replace("/h/", "/c/")) == 404


async def test_a_persons_click_beside_that_of_a_robot_that_says_so_stays_a_persons(world: World) -> None:
    one, two, three = addresses(world, "c")
    (trap,) = addresses(world, "h")
    robot = {"user-agent": "Slackbot-LinkExpanding 1.0"}
    await follow(world, one)
    for address in (one, two, three, trap):
        await follow(world, address, **robot)
    await follow(world, two)
    told = await clicks(world)
    assert [page for page, automated, _ in told if not automated] == ["one", "two"]
    assert {why for _, automated, why in told if automated} == {"a known scanner or robot, by its name"}
    await follow(world, three)
    assert {why for *_, why in await clicks(world)} == {
        "a known scanner or robot, by its name",
        "every link of the message was followed within 5 s",
    }, "whoever follows all of them unnamed is none"


async def test_a_known_scanner_is_told_by_its_network_through_a_proxy(world: World) -> None:
    await follow(world, addresses(world, "c")[0], **{"x-forwarded-for": "64.235.150.9"})
    assert await clicks(world) == [("one", True, "a known scanner, by its network: Barracuda")]
