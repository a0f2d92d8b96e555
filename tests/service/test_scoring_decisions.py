"""Stages by decision: set aside, set by hand, given back to the rules; and leads that nobody can reach."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import ErasureReported, ExportAnswered, ExportRequested, LeadErased, StageChanged
from shared.exports import part_in
from shared.settings import Settings
from shared.testing import FrozenClock, harness, token
from tests.service.scoring_world import DAY, GOOD_FIT, NOW, World
from throughline.services import service_code

ANNA = "anna@acme.example.com"
REFUSED = "urn:throughline:problem:scoring:stage-refused"


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def call(world: World, lead: str, what: str, status: int = 200, **body: Any) -> dict[str, Any]:
    """Decide something about a lead."""
    answer = await world.scoring.client.post(f"/v1/leads/{lead}:{what}", json=body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def moves_of(world: World, lead: str) -> list[StageChanged]:
    """The stage changes that were told of a lead, by revision: those by hand stand in another log."""
    told = [one for one in await world.scoring.told(StageChanged) if one.lead_id == lead]
    return sorted(told, key=lambda one: one.revision)


async def told(world: World, lead: str) -> list[tuple[str, str | None]]:
    """The stages that were told of a lead, and what kind of move each was."""
    return [(one.stage, one.move) for one in await moves_of(world, lead)]


async def pass_time(world: World, by: timedelta) -> None:
    world.clock.move(by)
    await world.scoring.run_timers()


async def test_a_disqualified_lead_stays_so_whatever_it_does_until_it_is_requalified(world: World) -> None:
    anna = world.lead_id(ANNA)
    await world.tell(world.touch(anna, "demo_requested"))
    await world.tell(await world.captured(ANNA, **GOOD_FIT))
    answer = await call(world, anna, "disqualify", reason="other", note="Sells the same thing in Graz")
    assert (answer["stage"], answer["stage_by_rules"]) == ("disqualified", "mql")
    world.clock.move(DAY)
    await world.tell(world.touch(anna, "demo_requested", NOW + DAY))
    score = await world.score(anna)
    assert (score["stage"], score["stage_reason"]) == ("disqualified", "disqualified: by hand, other")
    assert (await call(world, anna, "disqualify", 409, reason="spam"))["type"] == REFUSED
    assert (await call(world, anna, "set-stage", 409, stage="sql", reason="wrong_stage"))["type"] == REFUSED
    answer = await call(world, anna, "requalify", reason="mistake")
    assert answer["stage_reason"] == "disqualified ended: requalified by hand, mistake"
    assert await told(world, anna) == [("mql", "advanced"), ("disqualified", "disqualified"), ("mql", "requalified")]
    listed = (await world.scoring.client.get(f"/v1/leads/{anna}/decisions")).json()["items"]
    assert [(one["kind"], one["reason"], one["note"]) for one in listed] == [
        ("requalify", "mistake", None),
        ("disqualify", "other", "Sells the same thing in Graz"),
    ]
    assert listed[1]["ended_by"] == listed[0]["author"] == listed[1]["author"]
    assert "Graz" not in str([one.encode() for one in await world.scoring.told(StageChanged)])


async def test_a_recycled_lead_returns_when_its_time_is_over_or_when_it_asks(world: World) -> None:
    for lead in ("waits", "asks", "dated"):
        await world.tell(world.touch(lead, "demo_requested"))
        await world.tell(world.assigned(lead, f"a-{lead}"), world.accepted(lead, f"a-{lead}"))
    dated = (NOW + 10 * DAY).isoformat()
    world.clock.move(timedelta(hours=1))
    for lead in ("waits", "asks"):
        assert (await call(world, lead, "recycle", reason="bad_timing"))["stage"] == "recycled"
    assert (await call(world, "dated", "recycle", reason="bad_timing", until=dated))["until"] == "2026-11-30T12:00:00Z"
    await pass_time(world, 3 * DAY)
    await world.tell(world.touch("asks", "demo_requested", world.clock.now()))
    assert (await told(world, "asks"))[-2:] == [("recycled", "recycled"), ("mql", "returned")]
    await pass_time(world, 200 * DAY)
    back = (await moves_of(world, "waits"))[-1]
    assert (back.stage, back.move, back.occurred_at) == ("lead", "returned", NOW + timedelta(hours=1) + 90 * DAY)
    (back,) = [
        one for one in await world.scoring.told(StageChanged) if one.lead_id == "dated" and one.move == "returned"
    ]
    assert (back.stage, back.occurred_at) == ("mql", NOW + 10 * DAY)  # not accepted any more: it is given out anew
    for lead in ("waits", "dated"):
        assert (await world.score(lead))["stage"] == "lead"


async def test_a_rejected_lead_returns_after_ninety_days(world: World) -> None:
    await world.tell(
        world.touch("lead", "content_downloaded"), world.assigned("lead", "a"), world.rejected("lead", "a")
    )
    score = await world.score("lead")
    assert (score["stage"], score["returns_at"]) == ("recycled", "2027-02-18T12:00:00Z")
    await pass_time(world, 400 * DAY)
    (back,) = (await world.scoring.told(StageChanged))[-1:]
    assert (back.stage, back.move, back.occurred_at) == ("lead", "returned", NOW + 90 * DAY)


async def test_a_lead_that_cannot_be_reached_is_recycled_after_six_attempts_over_ten_working_days(world: World) -> None:
    """Attempts from a Friday on; the last of six on the fifth day, so that the tenth working day decides."""
    for lead in ("silent", "reached", "few"):
        await world.tell(world.touch(lead, "demo_requested"), world.assigned(lead, f"a-{lead}"))
        await world.tell(world.accepted(lead, f"a-{lead}"))
    begun = NOW + timedelta(hours=1)
    for day in range(6):
        world.clock.move(DAY)
        for lead in ("silent", "reached") + (("few",) if day else ()):
            await world.tell(world.touch(lead, "contact_attempted", begun + day * DAY))
    await world.tell(world.touch("reached", "call_connected", begun + 5 * DAY))
    await pass_time(world, 20 * DAY)
    (recycled,) = [one for one in await world.scoring.told(StageChanged) if one.move == "recycled"]
    assert (recycled.lead_id, recycled.occurred_at) == ("silent", begun + 14 * DAY)
    assert recycled.reason == "recycled: no contact after 6 attempts over 10 working days"
    assert recycled.until == begun + 104 * DAY
    listed = (await world.scoring.client.get("/v1/leads/silent/decisions")).json()["items"]
    assert [(one["kind"], one["author"]) for one in listed] == [("recycle", "throughline")]
    await pass_time(world, 100 * DAY)
    assert (await told(world, "silent"))[-1] == ("lead", "returned")


async def test_a_stage_set_by_hand_stands_until_the_rules_go_further(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"))
    assert (await call(world, "lead", "set-stage", stage="sql", reason="qualified_in_person"))["stage"] == "sql"
    await pass_time(world, 60 * DAY)
    assert (await world.score("lead"))["stage"] == "sql"
    assert (await call(world, "lead", "set-stage", stage="lead", reason="wrong_stage"))["furthest_stage"] == "sql"
    world.clock.move(DAY)
    await world.tell(world.touch("lead", "demo_requested", world.clock.now()))
    await world.tell(world.deal("lead", "d", "open", 1))
    moves = [("mql", "advanced"), ("sql", "set_by_hand"), ("lead", "set_by_hand"), ("mql", "advanced")]
    assert await told(world, "lead") == [*moves, ("opportunity", "advanced")]


@pytest.mark.parametrize(
    ("what", "body", "status", "where"),
    [
        ("disqualify", {}, 422, "/reason"),
        ("disqualify", {"reason": "because"}, 422, "/reason"),
        ("disqualify", {"reason": "other"}, 422, "/note"),
        ("disqualify", {"reason": "other", "note": " "}, 422, "/note"),
        ("disqualify", {"reason": "spam", "author": "me"}, 422, "/author"),
        ("recycle", {"reason": "bad_timing", "until": "2026-11-19T00:00:00Z"}, 422, "/until"),
        ("recycle", {"reason": "bad_timing", "until": "2036-11-19T00:00:00Z"}, 422, "/until"),
        ("recycle", {"reason": "bad_timing", "until": "2026-12-19"}, 422, "/until"),
        ("set-stage", {"reason": "imported", "stage": "vip"}, 422, "/stage"),
        ("set-stage", {"reason": "imported", "stage": "customer"}, 409, None),
        ("set-stage", {"reason": "imported", "stage": "recycled"}, 409, None),
        ("set-stage", {"reason": "imported", "stage": "mql"}, 409, None),
        ("requalify", {"reason": "mistake"}, 409, None),
        ("disqualify", {"reason": "spam", "note": "an id without a key"}, 409, None),
    ],
)
async def test_what_makes_no_sense_is_refused_and_says_why(
    world: World, what: str, body: dict[str, Any], status: int, where: str | None
) -> None:
    await world.tell(world.touch("lead", "demo_requested"))
    answer = await call(world, "lead", what, status, **body)
    assert [error["pointer"] for error in answer.get("errors", [])] == ([where] if where else [])
    assert answer["detail"]
    assert (await world.score("lead"))["stage"] == "mql"


async def test_a_lead_with_a_deal_is_not_set_aside(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"), world.deal("lead", "d", "open", 1))
    for what in ("disqualify", "recycle"):
        reason = {"disqualify": "spam", "recycle": "bad_timing"}[what]
        assert "change the deal" in (await call(world, "lead", what, 409, reason=reason))["detail"]
    assert (await call(world, "nobody", "disqualify", 404, reason="spam"))["type"].endswith("no-such-lead")


async def test_two_who_decide_at_once_and_one_who_asks_twice_decide_once(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"))
    both = await asyncio.gather(
        *(world.scoring.client.post("/v1/leads/lead:disqualify", json={"reason": "spam"}) for _ in range(2))
    )
    assert sorted(one.status_code for one in both) == [200, 409]
    headers = {"idempotency-key": "k1"}
    answers = [
        await world.scoring.client.post("/v1/leads/lead:requalify", json={"reason": "mistake"}, headers=headers)
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert [stage for stage, _ in await told(world, "lead")] == ["mql", "disqualified", "mql"]
    reads = {"authorization": f"Bearer {token(world.scoring.settings, 'scoring:read')}"}
    answer = await world.scoring.client.post("/v1/leads/lead:disqualify", json={"reason": "spam"}, headers=reads)
    assert answer.status_code == 403


async def test_decisions_go_with_people_when_they_are_merged_and_parted(world: World) -> None:
    for lead in ("one", "two", "three"):
        await world.tell(world.touch(lead, "demo_requested"))
    await call(world, "one", "disqualify", reason="competitor")
    await call(world, "three", "disqualify", reason="duplicate")
    await world.tell(world.merged("one", "two", NOW + timedelta(minutes=1)))
    await world.scoring.run_timers()
    assert (await world.score("one"))["stage"] == "disqualified"
    await world.tell(world.unmerged("one", "two", NOW + timedelta(minutes=2)))
    await world.scoring.run_timers()
    assert [(await world.score(lead))["stage"] for lead in ("one", "two")] == ["disqualified", "mql"]
    await world.tell(world.merged("three", "two", NOW + timedelta(minutes=3)))
    await world.scoring.run_timers()
    assert (await world.score("three"))["stage"] == "mql", "that it was a duplicate says nothing about the person"
    await world.tell(world.unmerged("three", "two", NOW + timedelta(minutes=4)))
    await world.tell(world.merged("one", "two", NOW + timedelta(minutes=5)))
    await world.scoring.run_timers()
    await call(world, "one", "requalify", reason="mistake")
    await world.tell(world.unmerged("one", "two", NOW + timedelta(minutes=6)))
    await world.scoring.run_timers()
    assert (await world.score("one"))["stage"] == "mql"


async def test_a_duplicate_that_stands_for_both_after_the_merge_is_no_duplicate_any_more(world: World) -> None:
    first, second, third = (world.lead_id(f"{name}@x.example.com") for name in ("first", "second", "third"))
    for name, lead in (("first", first), ("second", second), ("third", third)):
        await world.tell(await world.captured(f"{name}@x.example.com", **GOOD_FIT), world.touch(lead, "demo_requested"))
    await world.tell(world.merged(third, second, NOW - timedelta(minutes=1)))
    await call(world, second, "disqualify", reason="duplicate")
    await world.tell(world.touch(second, "page_view", NOW + timedelta(seconds=1)))
    assert (await world.score(second))["stage"] == "disqualified", "of a lead that it was not merged with"
    await world.tell(world.merged(first, second, NOW + timedelta(minutes=1)))
    await world.scoring.run_timers()
    assert (await world.score(second))["stage"] == "mql"
    await world.tell(world.unmerged(first, second, NOW + timedelta(minutes=2)))
    await world.scoring.run_timers()
    assert [(await world.score(lead))["stage"] for lead in (first, second)] == ["mql", "disqualified"]


async def test_the_furthest_stage_of_either_is_that_of_both_until_they_are_parted(world: World) -> None:
    await world.tell(world.touch("one", "demo_requested"), world.touch("two", "page_view"))
    await call(world, "one", "disqualify", reason="spam")

    async def furthest() -> list[str]:
        return [(await world.score(lead))["furthest_stage"] for lead in ("one", "two")]

    assert await furthest() == ["mql", "subscriber"]
    await world.tell(world.merged("one", "two", NOW + timedelta(minutes=1)))
    assert (await world.score("two"))["stage"] == "disqualified"
    assert await furthest() == ["mql", "mql"]
    await world.tell(world.unmerged("one", "two", NOW + timedelta(minutes=2)))
    assert await furthest() == ["mql", "subscriber"]


async def test_as_of_a_past_instant_merged_people_had_come_as_far_as_any_of_them(world: World) -> None:
    await world.tell(world.touch("one", "demo_requested"), world.touch("two", "page_view"))
    await world.scoring.run_timers()
    await pass_time(world, DAY)
    await world.tell(world.merged("zero", "one", NOW + DAY))
    await world.tell(world.merged("one", "two", NOW + DAY))
    await pass_time(world, 60 * DAY)

    async def then(lead: str, days: float) -> tuple[str, str]:
        when = (NOW + timedelta(days=days)).isoformat()
        told = (await world.scoring.client.get(f"/v1/leads/{lead}", params={"as_of": when})).json()
        return told["stage"], told["furthest_stage"]

    assert [await then("one", days) for days in (0.5, 2, 59)] == [
        ("mql", "mql"),
        ("mql", "mql"),
        ("lead", "mql"),
    ]
    await world.tell(world.unmerged("one", "two", NOW + 61 * DAY))
    await pass_time(world, DAY)
    assert [await then("one", days) for days in (0.5, 2)] == [("mql", "mql"), ("mql", "mql")]
    assert await then("two", 0.5) == ("subscriber", "subscriber")


async def test_an_erased_persons_stage_and_decisions_vanish(world: World) -> None:
    anna = world.lead_id(ANNA)
    await world.tell(await world.captured(ANNA, **GOOD_FIT), world.touch(anna, "demo_requested"))
    await call(world, anna, "disqualify", reason="other", note="met at the fair")
    asked = ExportRequested(**world._head(anna, "asked", NOW), export_id="e1", lead_ids=[anna])
    await world.tell(asked)
    (answer,) = await world.scoring.told(ExportAnswered)
    keys = world.scoring.runtime.keys
    async with world.scoring.runtime.database.reading() as connection:
        (chunk,) = await keys.open_many(connection, [(anna, answer.personal)])
    assert chunk is not None
    assert part_in([chunk])["stage_decisions"][0]["sealed"] == {"note": "met at the fair"}
    erased = LeadErased(**world._head(anna, "erased", NOW), receipt_id="r1")
    await world.tell(erased)
    before = len(await world.scoring.told(StageChanged))
    (report,) = await world.scoring.told(ErasureReported)
    assert (report.erased["stage_decisions"], report.erased["past_profiles"]) == (1, 1)
    await world.tell(world.touch(anna, "demo_requested", NOW + timedelta(minutes=1)))
    await pass_time(world, 60 * DAY)
    assert len(await world.scoring.told(StageChanged)) == before
    score = await world.score(anna)
    assert (score["stage"], score["furthest_stage"], score["stage_reason"]) == ("subscriber", "subscriber", "")
    for path in ("stages", "decisions"):
        assert (await world.scoring.client.get(f"/v1/leads/{anna}/{path}")).json()["items"] == []


async def test_the_reasons_are_data(world: World) -> None:
    client = world.scoring.client
    document = (await client.get("/v1/stage-reasons")).json()["document"]
    document["disqualify"].append({"id": "moved_away", "title": "Moved away"})
    assert (await client.put("/v1/stage-reasons", json=document)).json()["version"] == 2
    await world.tell(world.touch("lead", "demo_requested"))
    assert (await call(world, "lead", "disqualify", reason="moved_away"))["stage"] == "disqualified"
    tried = (await client.post("/v1/stage-reasons:simulate", json={"version": 1})).json()
    assert tried["items"] == [{"kind": "disqualify", "reason": "moved_away", "decisions": 1, "listed": False}]
    document["recycle"] = [{"id": "x", "title": "X"}, {"id": "x", "title": "Y"}]
    answer = await client.put("/v1/stage-reasons", json=document)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/recycle/1/id")


async def test_the_score_as_of_a_time(world: World) -> None:
    anna = world.lead_id(ANNA)
    await world.tell(await world.captured(ANNA, at=NOW - 20 * DAY, title="Analyst"))
    await world.tell(await world.captured(ANNA, revision=2, at=NOW - 5 * DAY, title="VP Sales", **GOOD_FIT))
    await world.tell(world.touch(anna, "form_submitted", NOW - 10 * DAY), world.touch(anna, "demo_requested"))

    async def at(when: datetime) -> dict[str, Any]:
        params = {"as_of": when.isoformat()}
        answer = await world.scoring.client.get(f"/v1/leads/{anna}", params=params)
        assert answer.status_code == 200, answer.text
        by_email = await world.scoring.client.get("/v1/leads", params={"email": ANNA, **params})
        assert by_email.json() == answer.json()
        told: dict[str, Any] = answer.json()
        return told

    past = await at(NOW - 8 * DAY)
    assert (past["engagement"], past["fit"]) == (pytest.approx(25 * 0.5 ** (2 / 30), abs=1e-6), 5)
    assert (past["stage"], past["kind"], past["as_of"]) == ("subscriber", "past", "2026-11-12T12:00:00Z")
    assert [one["rule_id"] for one in past["contributions"]] == ["title-analyst", "form-submitted"]
    present = await world.score(anna)
    assert (present["kind"], present["stage"]) == ("present", "mql")
    future = await at(NOW + 60 * DAY)
    assert (future["kind"], future["stage"]) == ("future", "lead")
    assert future["engagement"] == pytest.approx(present["engagement"] / 4, abs=1e-5)
    assert abs(datetime.fromisoformat(future["stage_since"]) - NOW) > 15 * DAY
    assert (await world.score(anna))["stage"] == "mql", "nothing was decided by looking ahead"
    answer = await world.scoring.client.get(f"/v1/leads/{anna}", params={"as_of": "2020-01-01T00:00:00Z"})
    assert answer.status_code == 404
    for no_time in ("yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = await world.scoring.client.get(f"/v1/leads/{anna}", params={"as_of": no_time})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query:as_of")


async def test_a_stage_change_tells_the_touch_and_the_scores_that_made_it(world: World) -> None:
    demo = world.touch("lead", "demo_requested", NOW - timedelta(minutes=5))
    await world.tell(demo, world.touch("lead", "page_view"))
    await pass_time(world, 30 * DAY)
    cold, asked = (await world.scoring.client.get("/v1/leads/lead/stages")).json()["items"]
    assert asked["touch"] == {
        "event_id": demo.event_id,
        "touch_id": demo.touch_id,
        "type": "demo_requested",
        "occurred_at": "2026-11-20T11:55:00Z",
    }
    assert (asked["engagement"] > 50, asked["move"], cold["move"], cold["touch"]) == (
        True,
        "advanced",
        "fell_back",
        None,
    )
