"""Scores, grades and stages of leads, with every point explained."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import LeadScored, StageChanged
from shared.settings import Settings
from shared.testing import FrozenClock, harness, token
from tests.service.scoring_world import DAY, GOOD_FIT, NOW, World
from throughline.services import service_code

ANNA = "anna@acme.example.com"


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def test_a_lead_is_scored_graded_and_staged_and_every_point_is_explained(world: World) -> None:
    anna = world.lead_id(ANNA)
    demo = world.touch(anna, "demo_requested")
    view = world.touch(anna, "page_view", NOW - DAY, page="https://acme.example.com/pricing")
    captured = await world.captured(ANNA, title="VP Sales", **GOOD_FIT)
    await world.tell(captured, demo, view)
    score = await world.score(anna)
    decayed = 0.5 ** (1 / 30)
    assert score["engagement"] == pytest.approx(50 + 16 * decayed)
    assert (score["fit"], score["grade"], score["stage"], score["rules_version"]) == (70, "A", "mql", 1)
    assert score["total"] == pytest.approx(score["engagement"] + 70)
    assert {one["rule_id"]: one["points"] for one in score["contributions"]} == {
        "title-senior": 15,
        "employees-50": 15,
        "industry-target": 10,
        "territory-served": 10,
        "use-case-supported": 20,
        "demo-requested": 50,
        "page-view": pytest.approx(decayed),
        "pricing-page": pytest.approx(15 * decayed),
    }
    facts = {one["rule_id"]: (one["event_id"], one["occurred_at"], one["awarded"]) for one in score["contributions"]}
    assert facts["demo-requested"] == (demo.event_id, "2026-11-20T12:00:00Z", 50)
    assert facts["pricing-page"] == (view.event_id, "2026-11-19T12:00:00Z", 15)
    assert facts["title-senior"][0] == captured.event_id
    by_email = await world.scoring.client.get("/v1/leads", params={"email": " Anna@Acme.example.com "})
    assert by_email.json() == score


async def test_points_are_told_at_the_moment_of_the_score_when_a_touch_to_come_meets_no_rule(world: World) -> None:
    await world.tell(world.touch("lead", "form_submitted", NOW - 10 * DAY), world.touch("lead", "odd", NOW + DAY / 2))
    score = await world.score("lead")
    assert score["engagement"] == pytest.approx(25 * 0.5 ** (10.5 / 30), abs=1e-6)
    assert [one["points"] for one in score["contributions"]] == [score["engagement"]]


async def test_the_score_decays_exactly_to_the_moment_of_the_call(world: World) -> None:
    await world.tell(world.touch("lead", "form_submitted", NOW - 10 * DAY))
    for days in (0, 0.5, 20, 333):
        world.clock.move(timedelta(days=days))
        age = (world.clock.now() - NOW) / DAY + 10
        assert (await world.score("lead"))["engagement"] == pytest.approx(25 * 0.5 ** (age / 30), abs=1e-6)


async def test_a_lead_that_nothing_was_told_about_is_unknown_not_zero(world: World) -> None:
    for path in ("/v1/leads/nobody", "/v1/leads?email=nobody@acme.example.com"):
        answer = await world.scoring.client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:throughline:problem:scoring:no-such-lead")
    answer = await world.scoring.client.get("/v1/leads?email=nobody")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query:email")


async def test_what_others_see_is_told_once_and_in_order(world: World) -> None:
    anna = world.lead_id(ANNA)
    demo = world.touch(anna, "demo_requested")
    await world.tell(demo)
    await world.tell(demo)
    await world.tell(world.touch(anna, "email_opened"))
    await world.tell(await world.captured(ANNA, **GOOD_FIT))
    scored = await world.scoring.told(LeadScored)
    assert [(one.revision, one.engagement, one.fit, one.total, one.grade, one.stage) for one in scored] == [
        (1, 50, 0, 50, "D", "mql"),
        (2, 50, 55, 105, "B", "mql"),
    ]
    (changed,) = await world.scoring.told(StageChanged)
    assert (changed.lead_id, changed.revision, changed.stage, changed.previous) == (anna, 1, "mql", None)
    assert changed.reason.startswith("mql: score.grade != 'F'")
    assert changed.profile_revision == 0
    assert len({one.event_id for one in [*scored, changed]}) == 3


async def test_a_stage_says_which_profile_was_read(world: World) -> None:
    await world.tell(await world.captured(ANNA, revision=7, company="Acme"))
    (changed,) = await world.scoring.told(StageChanged)
    assert (changed.stage, changed.profile_revision) == ("lead", 7)


async def test_a_correction_counts_as_received_last_and_a_duplicate_not_at_all(world: World) -> None:
    first = world.touch("lead", "form_submitted")
    corrected = world.touch("lead", "email_clicked", touch_id=first.touch_id)
    await world.tell(corrected)
    assert (await world.score("lead"))["engagement"] == 3
    await world.tell(first)
    assert (await world.score("lead"))["engagement"] == 3, "received before, arrived after"
    again = world.touch("lead", "webinar_attended", touch_id=first.touch_id)
    await world.tell(again, again)
    score = await world.score("lead")
    assert [(one["rule_id"], one["points"]) for one in score["contributions"]] == [("webinar-attended", 20)]
    assert score["engagement"] == 20


async def test_a_correction_may_move_a_touch_to_another_lead(world: World) -> None:
    first = world.touch("wrong", "demo_requested")
    await world.tell(first, world.touch("wrong", "form_submitted"))
    await world.tell(world.touch("right", "demo_requested", touch_id=first.touch_id))
    assert ((await world.score("wrong"))["engagement"], (await world.score("right"))["engagement"]) == (25, 50)
    await world.scoring.run_timers()
    assert (await world.score("wrong"))["stage"] == "lead"


async def test_a_day_pays_its_limit_across_batches(world: World) -> None:
    for minute in range(14, 0, -1):
        await world.tell(world.touch("lead", "page_view", NOW - timedelta(minutes=minute)))
    score = await world.score("lead")
    paid = sorted(one["occurred_at"] for one in score["contributions"])
    assert (len(paid), paid[0], paid[-1]) == (10, "2026-11-20T11:46:00Z", "2026-11-20T11:55:00Z")
    assert score["engagement"] == pytest.approx(sum(one["points"] for one in score["contributions"]), abs=1e-5)
    assert score["groups"] == [{"group": "web", "points": score["engagement"], "limit": 40}]


async def test_a_profile_counts_by_its_revision_whatever_arrives_last(world: World) -> None:
    newer = await world.captured(ANNA, revision=2, title="Director")
    older = await world.captured(ANNA, revision=1, title="Analyst")
    await world.tell(newer)
    await world.tell(older)
    assert (await world.score(world.lead_id(ANNA)))["fit"] == 15


async def test_erasing_forgets_who_it_was_and_keeps_what_was_done(world: World) -> None:
    anna = world.lead_id(ANNA)
    sealed = await world.sealed(anna, {"properties": {"a": 1}})
    await world.tell(
        await world.captured(ANNA, title="VP", **GOOD_FIT), world.touch(anna, "form_submitted", personal=sealed)
    )
    await world.tell(world.erased(anna))
    score = await world.score(anna)
    assert (score["engagement"], score["fit"], score["grade"]) == (25, 0, "D")
    stored = str(await world.projection())
    assert "Software" not in stored
    assert sealed not in stored


async def test_sales_moves_the_lead_along(world: World) -> None:
    stages = []
    await world.tell(world.touch("lead", "demo_requested", NOW - DAY), world.touch("lead", "meeting_held"))
    for fact in (
        world.assigned("lead", "a1", 1),
        world.accepted("lead", "a1"),
        world.deal("lead", "d1", "open", 1),
        world.deal("lead", "d1", "won", 2),
        world.deal("lead", "d1", "lost", 3),
        world.assigned("lead", "a2", 2),
        world.rejected("lead", "a2"),
        world.touch("lead", "demo_requested", NOW + timedelta(minutes=1)),
    ):
        await world.tell(fact)
        stages.append((await world.score("lead"))["stage"])
    assert stages == ["mql", "sql", "opportunity", "customer", "sql", "mql", "recycled", "mql"]
    answer = await world.score("lead")
    assert answer["furthest_stage"] == "customer"
    page = (await world.scoring.client.get("/v1/leads/lead/stages", params={"limit": 3})).json()
    assert [one["stage"] for one in page["items"]] == ["mql", "recycled", "mql"]
    rest = (await world.scoring.client.get("/v1/leads/lead/stages", params={"cursor": page["next_cursor"]})).json()
    assert [one["stage"] for one in rest["items"]] == ["sql", "customer", "opportunity", "sql", "mql"]
    assert rest["next_cursor"] is None


async def test_the_answer_to_an_assignment_may_be_read_before_the_assignment(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"), world.accepted("lead", "a1"))
    await world.tell(world.assigned("lead", "a1", 1))
    assert (await world.score("lead"))["stage"] == "sal"


async def test_a_decaying_score_demotes_on_time_without_any_event(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"))
    cold = NOW + 30 * DAY * 0.514573172829758  # log2(50 / 35) half-lives
    world.clock.move(cold - NOW - timedelta(seconds=2))
    await world.scoring.run_timers()
    assert (await world.score("lead"))["stage"] == "mql"
    world.clock.move(timedelta(seconds=3))
    for _ in range(2):
        await world.scoring.run_timers()
    score = await world.score("lead")
    assert (score["stage"], score["stage_reason"]) == ("lead", "mql ended: score.grade == 'F' || score.engagement < 35")
    changes = await world.scoring.told(StageChanged)
    assert [(one.stage, one.previous) for one in changes] == [("mql", None), ("lead", "mql")]
    assert changes[1].engagement == pytest.approx(35, abs=0.001)


async def test_the_next_timer_run_is_when_a_stage_is_due(world: World) -> None:
    await world.tell(world.touch("lead", "demo_requested"))
    stages_due = world.scoring.code.timers(world.scoring.consumer_runtime)[0]
    wait = await stages_due.run()
    while wait is not None:
        world.clock.move(wait)
        wait = await stages_due.run()
    assert (await world.score("lead"))["stage"] == "lead"
    assert world.clock.now() - NOW >= 30 * DAY * 0.514573172829758


@pytest.mark.parametrize("scope", ["", "capture:admin"])
async def test_a_token_with_the_scope_is_needed(world: World, scope: str) -> None:
    headers: dict[str, Any] = {"authorization": f"Bearer {token(world.scoring.settings, scope)}" if scope else ""}
    answer = await world.scoring.client.get("/v1/leads/lead", headers=headers)
    assert answer.status_code == (403 if scope else 401)
