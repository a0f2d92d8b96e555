"""The life of a rule document: checked, compared, guarded against overwriting, planned, rolled back, remembered."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest_asyncio

from shared.settings import Settings
from shared.testing import FrozenClock, Harness, eventually, harness
from tests.service.scoring_world import NOW
from throughline.services import service_code

BROKEN = {"engagement": {"rules": [{"id": "a", "when": "event.typ == 'x'", "points": 5}]}, "stages": [{"stage": "mql"}]}


@pytest_asyncio.fixture
async def scoring(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("scoring"), settings, clock=FrozenClock(NOW)) as service:
        yield service


def document(*points: int, **more: Any) -> dict[str, Any]:
    """Rules `r0`, `r1`, … with these points."""
    rules = [{"id": f"r{n}", "when": f"event.type == 't{n}'", "points": given} for n, given in enumerate(points)]
    return {"engagement": {"rules": rules}, **more}


async def call(scoring: Harness, method: str, path: str, status: int = 200, **more: Any) -> Any:
    """The answer, which must have this status."""
    answer = await scoring.client.request(method, f"/v1/rules{path}", **more)
    assert answer.status_code == status, answer.text
    return answer.json()


async def versions_by_state(scoring: Harness) -> list[tuple[int, str, str]]:
    """Every activation's version, state and reason, the last first."""
    page = await call(scoring, "GET", "/activations")
    return [(one["version"], one["state"], one["reason"]) for one in page["items"]]


async def test_a_document_is_checked_whole_and_not_saved(scoring: Harness) -> None:
    assert await call(scoring, "POST", ":validate", json=document(1)) == {"valid": True, "errors": [], "warnings": []}
    assert (await call(scoring, "POST", ":validate", json={"document": document(1)}))["valid"] is True
    expression = {"engagement": BROKEN["engagement"]}
    found = await call(scoring, "POST", ":validate", json=expression)
    assert [(one["pointer"], one["column"]) for one in found["errors"]] == [("/engagement/rules/0/when", 7)]
    shape = await call(scoring, "POST", ":validate", json=BROKEN)
    assert (shape["valid"], [one["pointer"] for one in shape["errors"]]) == (False, ["/stages/0/when"])
    await call(scoring, "POST", ":validate", 400, content=b"{")
    assert len((await call(scoring, "GET", "/versions"))["items"]) == 1


async def test_versions_are_compared_rule_by_rule_and_the_patch_makes_one_of_the_other(scoring: Harness) -> None:
    before = document(5, 10, 20, 30)
    after = document(5, 15, 20, 30, fit={"grades": {"A": 80}})
    rules = after["engagement"]["rules"]
    after["engagement"]["rules"] = [rules[3], rules[0], rules[1], {**rules[2], "id": "new", "once": True}]
    after["engagement"]["limit"] = 200
    await call(scoring, "PUT", "", json=before)
    await call(scoring, "PUT", "", json=after, params={"draft": True})
    found = await call(scoring, "GET", ":diff")
    assert (found["from"], found["to"], found["same"]) == (2, 3, False)
    assert [(one["id"], one["pointer"]) for one in found["added"]] == [("new", "/engagement/rules/3")]
    assert [(one["id"], one["pointer"]) for one in found["removed"]] == [("r2", "/engagement/rules/2")]
    (changed,) = found["changed"]
    assert (changed["id"], changed["changes"]) == ("r1", [{"pointer": "/points", "before": 10, "after": 15}])
    assert [(one["id"], one["from_index"], one["to_index"]) for one in found["moved"]] == [("r3", 3, 0)]
    assert [one["pointer"] for one in found["values"]] == ["/engagement/limit", "/fit"]
    assert jsonpatch.apply_patch(before, found["patch"]) == after
    back = await call(scoring, "POST", ":diff", json=before, params={"from": 3})
    assert (back["to"], jsonpatch.apply_patch(after, back["patch"])) == (None, before)
    same = await call(scoring, "GET", ":diff", params={"from": 2, "to": 2})
    assert (same["same"], same["patch"]) == (True, [])
    await call(scoring, "GET", ":diff", 404, params={"to": 9})
    assert (await call(scoring, "GET", "/versions/3"))["document"] == after
    await call(scoring, "GET", "/versions/9", 404)


async def test_two_editors_do_not_overwrite_each_other_unseen(scoring: Harness) -> None:
    await call(scoring, "PUT", "", json=document(5))
    mine = (await scoring.client.get("/v1/rules")).headers["etag"]
    answers = await asyncio.gather(
        *(
            scoring.client.put("/v1/rules", json=document(points), headers={"If-Match": mine})
            for points in range(10, 15)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    won = next(answer for answer in answers if answer.status_code == 200)
    problem = next(answer for answer in answers if answer.status_code == 409).json()
    assert problem["type"] == "urn:throughline:problem:rules:changed-meanwhile"
    (change,) = problem["errors"]
    points = won.json()["document"]["engagement"]["rules"][0]["points"]
    assert change["pointer"] == "/engagement/rules/0/points"
    assert change["detail"].startswith(f"is {points}, was 5")
    for path in (":activate", ":rollback"):
        body = {"version": 1} if path == ":activate" else {}
        await call(scoring, "POST", path, 409, json=body, headers={"If-Match": mine})
    await call(scoring, "POST", ":activate", 422, json={"version": 1}, headers={"If-Match": "three"})
    await call(scoring, "POST", ":activate", json={"version": 1}, headers={"If-Match": won.headers["etag"]})
    await call(scoring, "PUT", "", json=document(7))
    assert len((await call(scoring, "GET", "/versions"))["items"]) == 4


async def test_a_plan_is_listed_can_be_called_off_and_takes_effect_at_its_time(scoring: Harness) -> None:
    await call(scoring, "PUT", "", json=document(5), params={"draft": True})
    await call(scoring, "PUT", "", json=document(6), params={"draft": True})
    now = datetime.now(UTC)
    for version, at in ((2, now + timedelta(days=1)), (3, now + timedelta(hours=1))):
        plan = {"version": version, "at": at.isoformat(), "reason": f"plan {version}"}
        assert (await call(scoring, "POST", ":activate", json=plan))["active"] is False
    past = {"version": 2, "at": (now - timedelta(hours=1)).isoformat()}
    refused = await call(scoring, "POST", ":activate", 422, json=past)
    assert refused["errors"][0]["pointer"] == "/at"
    planned = await call(scoring, "GET", "/activations", params={"state": "planned"})
    assert [(one["version"], one["reason"], one["author"]) for one in planned["items"]] == [
        (3, "plan 3", "cli"),
        (2, "plan 2", "cli"),
    ]
    far = planned["items"][1]["id"]
    for _ in range(2):
        assert (await call(scoring, "DELETE", f"/activations/{far}"))["state"] == "cancelled"
    assert (await call(scoring, "GET", ""))["version"] == 1
    async with scoring.runtime.database.transaction() as tx:
        await tx.connection.execute("UPDATE rule_activations SET effective_at = clock_timestamp() WHERE version = 3")

    async def takes_effect() -> bool:
        return bool((await call(scoring, "GET", ""))["version"] == 3)

    await eventually(takes_effect)
    await call(scoring, "DELETE", f"/activations/{planned['items'][0]['id']}", 409)
    await call(scoring, "DELETE", "/activations/999999", 404)
    assert [state for _, state, _ in await versions_by_state(scoring)] == ["active", "cancelled", "past"]


async def test_rollbacks_go_back_one_by_one_and_the_history_says_why(scoring: Harness) -> None:
    await call(scoring, "POST", ":rollback", 409, json={})
    for points in (5, 6):
        await call(scoring, "PUT", "", json=document(points), params={"reason": f"to {points}"})
    once = {"idempotency-key": "back"}
    for _ in range(2):
        back = await call(scoring, "POST", ":rollback", json={"reason": "too many"}, headers=once)
        assert (back["version"], back["active"]) == (2, True)
    assert (await call(scoring, "POST", ":rollback"))["version"] == 1
    await call(scoring, "POST", ":rollback", 409, json={})
    await call(scoring, "POST", ":activate", json={"version": 3, "reason": "after all"})
    assert (await call(scoring, "POST", ":rollback", json={}))["version"] == 1
    assert await versions_by_state(scoring) == [
        (1, "active", ""),
        (3, "past", "after all"),
        (1, "past", ""),
        (2, "past", "too many"),
        (3, "past", "to 6"),
        (2, "past", "to 5"),
        (1, "past", ""),
    ]
    await call(scoring, "POST", ":rollback", 422, json={"reason": "x" * 1001})
    await call(scoring, "POST", ":rollback", 422, json={"reason": "a\x00"})
    await call(scoring, "PUT", "", 422, json=document(5), params={"reason": "a\x00"})
