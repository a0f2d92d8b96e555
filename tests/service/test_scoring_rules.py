"""Scoring rules are data: read, refused at the fault, saved, tried on history, switched, rolled back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import LeadScored, StageChanged
from shared.settings import Settings
from shared.testing import FrozenClock, harness, token
from tests.service.scoring_world import DAY, NOW, World
from throughline.services import service_code

ANNA = "anna@acme.example.com"


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


def document(points: int, **more: Any) -> dict[str, Any]:
    """Points for a form, and a stage for those who submitted one."""
    return {
        "engagement": {"rules": [{"id": "form", "when": "event.type == 'form_submitted'", "points": points}]},
        "stages": [{"stage": "mql", "when": "score.engagement >= 20"}],
        **more,
    }


async def test_a_new_installation_has_the_shipped_rules_active(world: World) -> None:
    answers = await asyncio.gather(*(world.scoring.client.get("/v1/rules") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    rules = answers[0].json()
    assert (rules["version"], rules["active"], rules["author"]) == (1, True, "throughline")
    assert rules["document"]["engagement"]["half_life_days"] == 30
    assert [stage["stage"] for stage in rules["document"]["stages"]][:3] == ["subscriber", "lead", "mql"]
    versions = (await world.scoring.client.get("/v1/rules/versions")).json()
    assert [one["version"] for one in versions["items"]] == [1]


@pytest.mark.parametrize(
    ("change", "pointer", "column"),
    [
        ({"stages": [{"stage": "mql", "when": "score.engagment >= 20"}]}, "/stages/0/when", 7),
        ({"fit": {"rules": [{"id": "a", "when": "lead.employes > 3", "points": 5}]}}, "/fit/rules/0/when", 6),
        ({"fit": {"rules": [{"id": "a", "when": "lead.employees >", "points": 5}]}}, "/fit/rules/0/when", 17),
        ({"fit": {"rules": [{"id": "a", "when": "true"}]}}, "/fit/rules/0/points", None),
        ({"surprise": 1}, "/surprise", None),
    ],
)
async def test_a_fault_is_refused_where_it_stands_and_nothing_is_saved(
    world: World, change: dict[str, Any], pointer: str, column: int | None
) -> None:
    saved = await world.scoring.client.put("/v1/rules", json=document(10, **change))
    tried = await world.scoring.client.post("/v1/rules:simulate", json={"document": document(10, **change)})
    for answer, place in ((saved, pointer), (tried, f"/document{pointer}")):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        (error,) = answer.json()["errors"]
        assert (error["pointer"], error.get("column")) == (place, column)
    assert len((await world.scoring.client.get("/v1/rules/versions")).json()["items"]) == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"engagement": {"rules": [{"id": "a\\u0000"}]}}'])
async def test_a_body_that_is_no_document_is_refused(world: World, body: bytes) -> None:
    answer = await world.scoring.client.put("/v1/rules", content=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["errors"]


async def test_saved_rules_score_history_anew_and_a_rollback_brings_the_old_scores_back(world: World) -> None:
    await world.tell(*(world.touch(f"lead-{n}", "form_submitted") for n in range(120)))
    before = await world.score("lead-7")
    saved = await world.put_rules(document(10))
    assert (saved["version"], saved["active"], saved["author"]) == (2, True, "cli")
    progress = (await world.scoring.client.get("/v1/rescoring")).json()
    assert (progress["rules_version"], progress["persons"], progress["remaining"]) == (2, 120, 120)
    await world.tell(world.touch("lead-8", "form_submitted"))
    assert (await world.score("lead-8"))["engagement"] == 50, "until then by the rules it was scored with"
    await world.scoring.run_timers()
    assert (await world.scoring.client.get("/v1/rescoring")).json()["remaining"] == 0
    assert [(await world.score(f"lead-{n}"))["engagement"] for n in (7, 8)] == [10, 20]
    assert [(await world.score(f"lead-{n}"))["stage"] for n in (7, 8)] == ["subscriber", "mql"]
    assert (await world.score("lead-7"))["rules_version"] == 2
    back = await world.scoring.client.post("/v1/rules:activate", json={"version": 1})
    assert (back.json()["version"], back.json()["active"]) == (1, True)
    await world.scoring.run_timers()
    after = await world.score("lead-7")
    assert {**after, "stage_since": None, "stage_reason": ""} == {**before, "stage_since": None, "stage_reason": ""}
    told = [
        (one.revision, one.total, one.rules_version)
        for one in await world.scoring.told(LeadScored)
        if one.lead_id == "lead-7"
    ]
    assert told == [(1, 25, 1), (2, 10, 2), (3, 25, 1)]
    assert len({one.event_id for one in await world.scoring.told(LeadScored)}) == len(
        await world.scoring.told(LeadScored)
    )


async def test_a_draft_is_saved_and_does_not_count(world: World) -> None:
    draft = await world.put_rules(document(10), draft=True)
    assert (draft["version"], draft["active"]) == (2, False)
    assert (await world.scoring.client.get("/v1/rules")).json()["version"] == 1
    versions = (await world.scoring.client.get("/v1/rules/versions", params={"limit": 1})).json()
    assert versions["items"][0]["version"] == 2
    rest = (await world.scoring.client.get("/v1/rules/versions", params={"cursor": versions["next_cursor"]})).json()
    assert ([one["version"] for one in rest["items"]], rest["next_cursor"]) == ([1], None)


async def test_an_activation_may_lie_ahead(world: World) -> None:
    await world.put_rules(document(10), draft=True)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await world.scoring.client.post("/v1/rules:activate", json={"version": 2, "at": later})
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    assert (await world.scoring.client.get("/v1/rules")).json()["version"] == 1


async def test_a_version_that_does_not_exist_cannot_be_activated(world: World) -> None:
    answer = await world.scoring.client.post("/v1/rules:activate", json={"version": 9})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:throughline:problem:rules:no-such-version")


async def test_saving_at_once_makes_different_versions(world: World) -> None:
    answers = await asyncio.gather(*(world.put_rules(document(points)) for points in range(1, 9)))
    assert sorted(answer["version"] for answer in answers) == list(range(2, 10))
    active = (await world.scoring.client.get("/v1/rules")).json()
    assert active["version"] == 9
    assert active["document"] == next(one["document"] for one in answers if one["version"] == 9)


async def test_reading_needs_no_right_to_change(world: World) -> None:
    headers = {"authorization": f"Bearer {token(world.scoring.settings, 'scoring:read')}"}
    assert (await world.scoring.client.get("/v1/rules", headers=headers)).status_code == 200
    for method, path, body in (("PUT", "/v1/rules", document(1)), ("POST", "/v1/rules:activate", {"version": 1})):
        answer = await world.scoring.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == 403, path


async def test_a_simulation_says_who_would_change_and_changes_nobody(world: World) -> None:
    await world.tell(
        world.touch("warm", "form_submitted"),
        world.touch("other", "page_view"),
        world.touch("old", "form_submitted", NOW - 40 * DAY),
    )
    before = await world.projection()
    told = len(await world.scoring.told(LeadScored))
    answer = await world.scoring.client.post("/v1/rules:simulate", json={"document": document(60), "days": 30})
    report = answer.json()
    assert (report["days"], report["persons"], report["changed"]) == (30, 2, 2)
    first = report["items"][0]
    assert (first["lead_id"], first["before"]["engagement"], first["before"]["stage"]) == ("warm", 25, "lead")
    assert (first["after"]["engagement"], first["after"]["stage"], first["after"]["grade"]) == (60, "mql", "D")
    assert report["stages"]["mql"] == {"before": 0, "after": 1}
    assert await world.projection() == before
    assert len(await world.scoring.told(LeadScored)) == told
    same = await world.scoring.client.post("/v1/rules:simulate", json={"version": 1, "days": 90})
    assert (same.json()["persons"], same.json()["changed"], same.json()["items"]) == (3, 0, [])


@pytest.mark.parametrize("body", [{}, {"version": 1, "document": {}}, {"version": 1, "days": 0}, {"version": "x"}])
async def test_a_simulation_names_one_rule_set(world: World, body: dict[str, Any]) -> None:
    assert (await world.scoring.client.post("/v1/rules:simulate", json=body)).status_code == 422


async def test_rules_on_properties_open_what_is_personal(world: World) -> None:
    anna = world.lead_id(ANNA)
    rule = {"id": "big", "when": "event.properties.seats >= 100", "points": 40}
    await world.put_rules({"engagement": {"rules": [rule]}})
    big = await world.sealed(anna, {"properties": {"seats": 250}})
    small = await world.sealed(anna, {"properties": {"seats": 3}})
    await world.tell(
        world.touch(anna, "form_submitted", personal=big),
        world.touch(anna, "form_submitted", personal=small),
        world.touch(anna, "form_submitted"),
    )
    score = await world.score(anna)
    assert (score["engagement"], len(score["contributions"])) == (40, 1)
    await world.tell(world.erased(anna))
    assert (await world.score(anna))["engagement"] == 40, "what was earned stays"


async def test_stages_may_depend_on_what_is_personal(world: World) -> None:
    stages = [{"stage": "disqualified", "when": "lead.email_domain == 'rival.example.com'"}]
    await world.put_rules({"engagement": {}, "stages": stages})
    await world.tell(await world.captured("eve@rival.example.com"), await world.captured(ANNA))
    assert (await world.score(world.lead_id("eve@rival.example.com")))["stage"] == "disqualified"
    assert (await world.score(world.lead_id(ANNA)))["stage"] == "subscriber"


async def test_a_short_half_life_demotes_within_seconds(world: World) -> None:
    rules = document(
        50, stages=[{"stage": "mql", "when": "score.engagement >= 50", "leave_when": "score.engagement < 35"}]
    )
    rules["engagement"]["half_life_days"] = 0.0001  # 8.64 s
    await world.put_rules(rules)
    await world.tell(world.touch("lead", "form_submitted"))
    assert (await world.score("lead"))["stage"] == "mql"
    stages_due = world.scoring.code.timers(world.scoring.consumer_runtime)[0]
    while (await world.score("lead"))["stage"] == "mql":
        wait = await stages_due.run()
        world.clock.move(wait or timedelta(0))
    assert abs((world.clock.now() - NOW).total_seconds() - 8.64 * 0.514573) < 0.1
    assert [one.stage for one in await world.scoring.told(StageChanged)] == ["mql", "subscriber"]
