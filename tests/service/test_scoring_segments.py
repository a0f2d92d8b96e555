"""Segments: kept as facts arrive and as time passes, told as people enter and leave, built anew beside what serves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest_asyncio

from services.scoring.parts import make_parts
from services.scoring.segments.document import compile_condition
from services.scoring.segments.lists import put_listed
from services.scoring.segments.preview import preview
from shared.events import StageChanged
from shared.ids import SegmentId
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.runtime_world import WAITING, anybody_waits, value
from tests.service.scoring_world import DAY, NOW, PEOPLE
from tests.service.segments_world import Segments
from throughline.services import service_code


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[Segments]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield Segments(service, clock)


async def test_a_segment_follows_facts_and_time_and_says_why(world: Segments) -> None:
    anna, bert = (world.lead_id(email) for email in PEOPLE[:2])
    await world.tell(await world.captured(PEOPLE[0], country="AT"), await world.captured(PEOPLE[1], country="US"))
    await world.tell(world.touch(anna, "form_submitted"), world.touch(bert, "form_submitted"))
    made = await world.save("keen", "lead.country == 'AT' && touches.form_submitted.days_7 >= 2")
    assert (made["state"], made["serving_version"]) == ("building", None)
    ready = await world.ask("GET", "segments/keen", 200)
    assert (ready["state"], ready["counted"], ready["remaining"], ready["members"]) == ("ready", 2, 0, 0)

    await world.tell(world.touch(bert, "form_submitted"), world.touch(anna, "form_submitted", NOW - 3 * DAY))
    assert await world.members("keen") == {anna}
    [membership] = (await world.ask("GET", f"leads/{anna}/segments", 200))["segments"]
    assert membership["why"] == {"lead.country": "AT", "touches.form_submitted.days_7": 2}
    assert (membership["segment_id"], membership["since"]) == ("keen", "2026-11-20T12:00:00Z")

    world.clock.move(4 * DAY - timedelta(seconds=1))
    await world.scoring.run_timers()
    assert await world.members("keen") == {anna}
    world.clock.move(timedelta(seconds=1))
    await world.scoring.run_timers()
    assert await world.members("keen") == set()
    await world.tell(world.touch(anna, "form_submitted", NOW + 4 * DAY))
    await world.tell(await world.captured(PEOPLE[0], revision=2, country="DE"))
    assert await world.moves("keen") == [
        ("in", anna, 1, False),
        ("out", anna, 2, False),
        ("in", anna, 3, False),
        ("out", anna, 4, False),
    ]


async def test_a_segment_of_segments_follows_them_and_holds_them(world: Segments) -> None:
    anna = world.lead_id(PEOPLE[0])
    await world.tell(await world.captured(PEOPLE[0], country="AT"), world.touch(anna, "form_submitted"))
    await world.save("eu", "lead.country in ['AT', 'DE']")
    await world.save("active", "touches.any.days_1 > 0")
    await world.save("targets", "'eu' in segments && 'active' in segments")
    assert await world.members("targets") == {anna}
    world.clock.move(DAY)
    await world.scoring.run_timers()
    assert (await world.members("active"), await world.members("targets")) == (set(), set())

    unknown = await world.ask("POST", "segments:preview", 422, json={"when": "'nowhere' in segments"})
    assert unknown["errors"] == [{"pointer": "/when", "detail": "there is no segment nowhere", "column": 2}]
    hidden = await world.ask("POST", "segments:preview", 422, json={"when": "segments.exists(s, s == 'eu')"})
    assert hidden["errors"][0]["detail"].startswith("ask for a segment by its id")
    circle = {"name": "EU", "kind": "dynamic", "when": "lead.country == 'AT' || 'targets' in segments"}
    refused = await world.ask("PUT", "segments/eu", 422, json=circle)
    assert refused["errors"][0]["detail"] == "the segments lead back to one another: eu -> targets -> eu"
    held = await world.ask("DELETE", "segments/eu", 409)
    assert held["detail"].startswith("targets asks for eu")
    await world.ask("DELETE", "segments/targets", 204)
    await world.ask("DELETE", "segments/eu", 204)
    await world.scoring.run_timers()
    await world.ask("GET", "segments/eu", 404)
    assert await world.as_told() == {"eu": set(), "active": set(), "targets": set()}
    async with world.scoring.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM segment_members") == 0


async def test_what_is_saved_anew_is_built_beside_what_serves_and_told_as_saved(world: Segments) -> None:
    anna, bert, cleo = (world.lead_id(email) for email in PEOPLE)
    for email, country in zip(PEOPLE, ("AT", "AT", "US"), strict=True):
        await world.tell(await world.captured(email, country=country))
    await world.save("home", "lead.country == 'AT'")
    assert await world.moves("home") == sorted([("in", anna, 1, True), ("in", bert, 1, True)], key=lambda one: one[1])
    world.clock.move(DAY)
    anew = {"name": "Home", "kind": "dynamic", "when": "lead.country in ['AT', 'US'] && lead.industry != 'Toys'"}
    building = await world.ask("PUT", "segments/home", 200, json=anew)
    assert (building["state"], building["version"], building["serving_version"], building["remaining"]) == (
        "building",
        2,
        1,
        3,
    )
    await world.tell(await world.captured(PEOPLE[1], revision=2, country="DE", industry="Software"))
    assert await world.members("home") == {anna}, "the version before serves, and follows the facts"
    for email, country, industry in ((PEOPLE[0], "AT", "Software"), (PEOPLE[2], "US", "Software")):
        await world.tell(await world.captured(email, revision=2, country=country, industry=industry))
    await world.scoring.run_timers()
    ready = await world.ask("GET", "segments/home", 200)
    assert (ready["state"], ready["serving_version"], ready["members"]) == ("ready", 2, 2)
    assert await world.members("home") == {anna, cleo}
    assert {one for one in await world.moves("home") if one[1] != anna} == {
        ("in", bert, 1, True),
        ("out", bert, 2, False),
        ("in", cleo, 1, True),
    }
    [membership] = (await world.ask("GET", "leads:segments", 200, params={"email": PEOPLE[0]}))["segments"]
    assert (membership["since"], membership["version"]) == ("2026-11-20T12:00:00Z", 2), "she was in all the time"

    renamed = await world.ask("PUT", "segments/home", 200, json={**anew, "name": "Our home"})
    assert (renamed["state"], renamed["version"], renamed["serving_version"]) == ("ready", 3, 2)
    back = await world.ask("POST", "segments/home:activate", 200, json={"version": 1})
    assert (back["state"], back["version"]) == ("building", 1)
    await world.scoring.run_timers()
    assert await world.members("home") == {anna} == (await world.as_told())["home"]
    drafted = await world.ask("PUT", "segments/home", 200, params={"draft": "true"}, json={**anew, "when": "false"})
    assert (drafted["version"], drafted["state"]) == (1, "ready")
    versions = await world.ask("GET", "segments/home/versions", 200)
    assert [(one["version"], one["active"]) for one in versions["items"]] == [
        (4, False),
        (3, False),
        (2, False),
        (1, True),
    ]


async def test_a_list_follows_its_people_through_merges_and_erasures(world: Segments) -> None:
    anna, bert, cleo = (world.lead_id(email) for email in PEOPLE)
    await world.tell(*[await world.captured(email) for email in PEOPLE[:2]])
    await world.ask("POST", "segments", 201, json={"segment_id": "guests", "name": "Guests", "kind": "static"})
    added = await world.ask(
        "POST", "segments/guests/members", 200, json={"emails": [PEOPLE[1], "no address", PEOPLE[2]]}
    )
    assert [(one["lead_id"], one["state"]) for one in added["items"]] == [
        (bert, "added"),
        (None, "invalid"),
        (cleo, "awaited"),
    ]
    again = await world.ask("POST", "segments/guests/members", 200, json={"lead_ids": [bert]})
    assert again["items"] == [{"index": 0, "lead_id": bert, "state": "already"}]
    assert await world.members("guests") == {bert}
    await world.tell(await world.captured(PEOPLE[2]))
    assert await world.members("guests") == {bert, cleo}
    await world.tell(world.merged(bert, anna))
    assert await world.members("guests") == {anna, cleo} == (await world.as_told())["guests"]
    await world.tell(world.unmerged(bert, anna, NOW + timedelta(minutes=1)))
    assert await world.members("guests") == {bert, cleo} == (await world.as_told())["guests"]
    await world.tell(world.erased(cleo))
    assert await world.members("guests") == {bert} == (await world.as_told())["guests"]
    removed = await world.ask("DELETE", "segments/guests/members", 200, json={"lead_ids": [bert, anna]})
    assert [one["state"] for one in removed["items"]] == ["removed", "absent"]
    assert await world.members("guests") == set()
    await world.save("everybody", "true")
    assert await world.members("everybody") == {anna, bert}, "an erased person is in no segment"
    await world.ask("POST", "segments/everybody/members", 409, json={"lead_ids": [anna]})


async def test_who_is_put_on_a_list_while_it_is_deleted_is_not_on_the_next_one_of_its_name(world: Segments) -> None:
    await world.tell(await world.captured("ann@example.com"))
    guests = {"segment_id": "guests", "name": "Guests", "kind": "static"}
    await world.ask("POST", "segments", 201, json=guests)
    database, ann = world.scoring.runtime.database, world.lead_id("ann@example.com")
    holding = await database.connect()
    try:
        held_up = holding.transaction()
        await held_up.start()
        await put_listed(holding, SegmentId("guests"), [ann], NOW)
        adding = asyncio.create_task(world.ask("POST", "segments/guests/members", 200, json={"lead_ids": [ann]}))
        await eventually(lambda: anybody_waits(database))
        deleting = asyncio.create_task(world.ask("DELETE", "segments/guests", 204))

        async def is_over_or_waits() -> bool:
            return deleting.done() or await value(database, WAITING) == 2

        await eventually(is_over_or_waits)
        await world.scoring.run_timers()
        await held_up.rollback()
    finally:
        await holding.close()
    await adding
    await deleting
    await world.scoring.run_timers()
    await world.ask("POST", "segments", 201, json=guests)
    assert await world.members("guests") == set()
    added = await world.ask("POST", "segments/guests/members", 200, json={"lead_ids": [ann]})
    assert [one["state"] for one in added["items"]] == ["added"]
    assert await world.members("guests") == {ann}


async def test_a_preview_is_exact_or_says_how_far_off_it_may_be(world: Segments) -> None:
    leads = [f"lead-{number}" for number in range(60)]
    await world.tell(
        *(world.touch(one, "form_submitted") for one in leads), *(world.touch(one, "page_view") for one in leads[:15])
    )
    seen = await world.ask("POST", "segments:preview", 200, json={"when": "touches.page_view.ever == 1"})
    assert (seen["people"], seen["size"], seen["share"], seen["exact"], len(seen["samples"])) == (
        60,
        15,
        0.25,
        True,
        15,
    )
    assert seen["samples"][0]["why"] == {"touches.page_view.ever": 1}
    condition = compile_condition("touches.page_view.ever == 1")
    parts, database = make_parts(world.scoring.runtime), world.scoring.runtime.database
    guess = await preview(database, parts, condition, exact_up_to=40)
    assert not guess.exact
    assert 0 < guess.looked_at <= 40
    assert guess.at_least <= guess.size <= guess.at_most <= 60
    assert guess.at_most - guess.at_least > 5
    async with database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM segments") == 0


FAULTY: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "A", "kind": "dynamic"}, ""),
    ({"name": "A", "kind": "static", "when": "true"}, ""),
    ({"name": "", "kind": "static"}, "/name"),
    ({"name": "A", "kind": "static", "segment_id": "Not This"}, "/segment_id"),
    ({"name": "A", "kind": "dynamic", "when": "lead.size > 3"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "touches.form_submitted.days_0 > 0"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "touches.form_submitted.days_1001 > 0"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "touches.form_submitted > 0"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "touches > 0"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "touches['Form'].ever > 0"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "touches.form_submitted.last_at > 3"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "now > timestamp('2026-01-01T00:00:00Z')"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "'a' in segments || size(segments) > 2"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "lead.country"}, "/when"),
    ({"name": "A", "kind": "dynamic", "when": "lead.country =="}, "/when"),
)


async def test_a_faulty_segment_is_refused_with_its_place(world: Segments) -> None:
    for body, pointer in FAULTY:
        refused = await world.ask("POST", "segments", 422, json=body)
        assert [error["pointer"] for error in refused["errors"]] == [pointer], body


async def test_segments_entered_with_a_stage_travel_with_it_and_nothing_personal_does(world: Segments) -> None:
    anna = world.lead_id(PEOPLE[0])
    await world.save("hot", "stage == 'mql' || touches.demo_requested.ever > 0")
    await world.save("rich", "lead.attributes.budget > 1000")
    await world.tell(world.touch(anna, "page_view"))
    await world.tell(world.touch(anna, "demo_requested"))
    [change] = await world.scoring.told(StageChanged)
    assert (change.stage, [move.segment_id for move in change.segments]) == ("mql", ["hot"])
    await world.tell(await world.captured(PEOPLE[0], attributes={"budget": 5000}))
    [rich] = [
        one for one in (await world.ask("GET", f"leads/{anna}/segments", 200))["segments"] if one["name"] == "Rich"
    ]
    assert rich["why"] == {"lead.attributes.budget": "personal"}


async def test_a_segment_asks_for_the_account_and_for_named_scores(world: Segments) -> None:
    anna = world.lead_id(PEOPLE[0])
    document = (await world.ask("GET", "rules", 200))["document"]
    rule = {"id": "docs", "when": "event.type == 'page_view'", "points": 10}
    await world.put_rules({**document, "scores": [{"id": "product", "half_life_days": 1, "rules": [rule]}]})
    unknown = await world.ask("POST", "segments:preview", 422, json={"when": "scores.nothing > 1.0"})
    assert unknown["errors"][0]["detail"] == "there is no score nothing; there are product"
    await world.save("large", "lead.account.employees > 100")
    await world.save("users", "scores.product >= 5.0")
    await world.tell(await world.captured(PEOPLE[0], account_id="acme"), world.touch(anna, "page_view"))
    await world.tell(world.account("acme", 1, merged_into="acme-group"), world.account("acme-group", 1, employees=50))
    await world.scoring.run_timers()
    assert (await world.members("large"), await world.members("users")) == (set(), {anna})
    await world.tell(world.account("acme-group", 2, employees=500))
    await world.scoring.run_timers()
    assert await world.members("large") == {anna}
    world.clock.move(DAY + timedelta(seconds=1))
    await world.scoring.run_timers()
    assert await world.members("users") == set()
