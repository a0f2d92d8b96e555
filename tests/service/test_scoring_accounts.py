"""Scores of accounts: made of their people, through the hierarchy, told when others can see a difference."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import AccountScored
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.scoring_world import DAY, GOOD_FIT, NOW, World
from throughline.services import service_code

ANNA, BEN, CARA = (f"{name}@acme.example.com" for name in ("anna", "ben", "cara"))


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def account(world: World, account_id: str, status: int = 200) -> dict[str, Any]:
    answer = await world.scoring.client.get(f"/v1/accounts/{account_id}")
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(world: World, **params: Any) -> list[tuple[str, float, str]]:
    items = (await world.scoring.client.get("/v1/accounts", params=params)).json()["items"]
    return [(item["account_id"], round(item["total"], 3), item["grade"]) for item in items]


async def told(world: World, account_id: str) -> list[tuple[int, float, str, int]]:
    await world.scoring.run_timers()
    return [
        (one.revision, round(one.total, 3), one.grade, one.engaged_people)
        for one in await world.scoring.told(AccountScored)
        if one.account_id == account_id
    ]


async def acme(world: World) -> None:
    """Anna works for acme and Ben for its daughter; Cara for nobody that is known."""
    await world.tell(world.account("acme", country="AT"), world.account("daughter", parent_id="acme"))
    await world.tell(
        await world.captured(ANNA, account_id="acme", **GOOD_FIT), await world.captured(BEN, account_id="daughter")
    )
    await world.tell(
        world.touch(world.lead_id(ANNA), "form_submitted"),
        world.touch(world.lead_id(BEN), "demo_requested", NOW - 30 * DAY),
        world.touch(world.lead_id(CARA), "demo_requested"),
    )


async def test_an_account_is_what_its_people_and_those_below_it_come_to(world: World) -> None:
    await acme(world)
    found = await account(world, "acme")
    assert (found["engagement"], found["fit"], found["total"], found["grade"]) == (50, 55, 105, "B")
    assert (found["people"], found["engaged_people"], found["fit_from"]) == (2, 2, world.lead_id(ANNA))
    given = {one["lead_id"]: (one["account_id"], one["contributes"]) for one in found["contributions"]}
    assert given == {world.lead_id(ANNA): ("acme", 25), world.lead_id(BEN): ("daughter", 25)}
    assert found["accounts"] == ["acme", "daughter"]
    daughter = await account(world, "daughter")
    assert (daughter["engagement"], daughter["fit"], daughter["grade"]) == (25, 0, "D")
    world.clock.move(30 * DAY)
    assert (await account(world, "acme"))["engagement"] == 25
    assert (await account(world, "nobodys", 404))["type"] == "urn:throughline:problem:scoring:no-such-account"


async def test_a_change_is_told_once_and_orders_the_list(world: World) -> None:
    await acme(world)
    assert await told(world, "acme") == [(1, 105, "B", 2)]
    assert await told(world, "daughter") == [(1, 25, "D", 1)]
    assert await listed(world) == [("acme", 105, "B"), ("daughter", 25, "D")]
    await world.tell(world.touch(world.lead_id(BEN), "email_opened"))
    assert len(await told(world, "acme")) == 1
    await world.tell(world.touch(world.lead_id(BEN), "form_submitted"))
    assert (await told(world, "acme"))[1:] == [(2, 130, "B", 2)]
    first = await world.scoring.client.get("/v1/accounts", params={"limit": 1})
    assert await listed(world, limit=1, cursor=first.json()["next_cursor"]) == [("daughter", 50, "D")]


async def test_decay_alone_is_told_when_it_changes_a_whole_point(world: World) -> None:
    await world.tell(await world.captured(ANNA, account_id="acme"))
    await world.tell(world.touch(world.lead_id(ANNA), "content_downloaded"))
    assert await told(world, "acme") == [(1, 10, "D", 1)]
    world.clock.move(timedelta(days=2.2))  # ten points are worth nine and a half after 2.22 days
    assert len(await told(world, "acme")) == 1
    world.clock.move(timedelta(days=0.1))
    ((revision, total, _, engaged),) = (await told(world, "acme"))[1:]
    assert (revision, engaged) == (2, 0)
    assert total == pytest.approx(10 * 0.5 ** (2.3 / 30), abs=0.01)


async def test_people_and_accounts_that_move_take_their_points_along(world: World) -> None:
    await acme(world)
    await told(world, "acme")
    await world.tell(await world.captured(BEN, 2, account_id="other"))
    assert (await told(world, "acme"))[-1][1] == 80
    assert (await told(world, "daughter"))[-1] == (2, 0, "D", 0)
    assert (await told(world, "other"))[-1][1] == 25
    await world.tell(world.account("other", parent_id="acme"))
    assert (await told(world, "acme"))[-1][1] == 105
    await world.tell(world.account("acme", 2, merged_into="holding"), world.account("holding"))
    assert (await told(world, "acme"))[-1][1:3] == (0, "D")
    assert (await told(world, "holding"))[-1][1] == 105
    assert (await account(world, "acme"))["account_id"] == "holding"
    assert [name for name, _, _ in await listed(world)] == ["holding", "other", "daughter"]


async def test_accounts_that_close_a_circle_for_a_moment_are_scored_all_the_same(world: World) -> None:
    await acme(world)
    await world.tell(world.account("acme", 2, parent_id="daughter"), world.account("own", parent_id="own"))
    assert (await told(world, "daughter"))[-1][1] == (await told(world, "acme"))[-1][1] == 105
    assert (await account(world, "own"))["people"] == 0
    await world.tell(world.account("one", merged_into="two"), world.account("two", merged_into="one"))
    assert await told(world, "one") == []
    assert (await account(world, "one"))["people"] == 0


async def test_merged_and_erased_people_count_once_and_not_at_all(world: World) -> None:
    await acme(world)
    await world.tell(world.merged(world.lead_id(BEN), world.lead_id(ANNA)))
    found = await account(world, "acme")
    assert (found["people"], found["engagement"]) == (1, 50)
    assert (await told(world, "daughter"))[-1][1] == 0
    await world.tell(world.erased(world.lead_id(ANNA)), world.erased(world.lead_id(BEN)))
    assert (await told(world, "acme"))[-1][1] == 10, "the fit of the account's own fields is left"


async def test_other_rules_score_accounts_anew_and_a_withdrawn_touch_takes_its_part_back(world: World) -> None:
    await acme(world)
    await told(world, "acme")
    document = (await world.scoring.client.get("/v1/rules")).json()["document"]
    await world.put_rules({**document, "account": {"engagement": "max", "children": False}})
    assert (await told(world, "acme"))[-1][1] == 80
    demo = world.touch(world.lead_id(ANNA), "demo_requested")
    await world.tell(demo)
    assert (await told(world, "acme"))[-1][1] == 130
    await world.tell(world.withdrawn(demo))
    assert (await told(world, "acme"))[-1][1] == 80
    for field, value in (("engagement", "mean"), ("top", 0), ("limit", 0), ("engaged_from", 0), ("kids", True)):
        answer = await world.scoring.client.put("/v1/rules", json={**document, "account": {field: value}})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/account/{field}")
