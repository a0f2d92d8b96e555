"""Custom models: saved, refused at the fault, and credited to all of history."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.models.columns import divides
from services.attribution.models.domain import BUILT_IN
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import Teller
from tests.service.attribution_random import random_history
from throughline.services import service_code

RECENT = {"title": "Only the last week", "rules": [{"when": "age_days > 7.0", "multiply": 0}]}


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def put(service: Harness, model: str, document: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = await service.client.put(f"/v1/models/{model}", json=document, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def values(service: Harness, model: str) -> dict[str, int]:
    answer = await service.client.get("/v1/reports/attribution", params={"model": model})
    assert answer.status_code == 200, answer.text
    return {row["key"]: row["value_minor"] for row in answer.json()["rows"]}


async def run_until_backfilled(service: Harness, model: str) -> None:
    for _ in range(20):
        await service.run_timers()
        if (await service.client.get(f"/v1/models/{model}")).json()["building"] is None:
            return
    raise AssertionError("the walk does not end")


async def test_shipped_models_are_listed_and_one_custom_model_is_there(attribution: Harness) -> None:
    models = (await attribution.client.get("/v1/models")).json()["items"]
    assert {(one["model_id"], one["kind"]) for one in models} >= {
        ("first_touch", "shipped"),
        ("position_based", "shipped"),
        ("engaged", "custom"),
    }
    assert {one["lookback_days"] for one in models} == {90}
    assert (await attribution.client.get("/v1/models/linear")).json()["kind"] == "shipped"
    engaged = (await attribution.client.get("/v1/models/engaged")).json()
    assert (engaged["version"], engaged["active"], engaged["author"]) == (1, True, "throughline")


async def test_new_model_credits_all_of_history(attribution: Harness) -> None:
    teller = Teller()
    for channel, days in (("Paid Search", 20), ("Email", 3)):
        await attribution.deliver(*(teller.touch(f"lead{number}", days, channel=channel) for number in range(130)))
    await attribution.deliver(*(teller.conversion(f"lead{number}", 0, 100) for number in range(130)))
    assert (await put(attribution, "recent", RECENT))["version"] == 1
    await run_until_backfilled(attribution, "recent")
    assert await values(attribution, "recent") == {"Email": 13_000}
    await attribution.deliver(teller.touch("lead0", 1, channel="SMS"))
    assert await values(attribution, "recent") == {"Email": 12_950, "SMS": 50}


async def test_switching_back_credits_by_the_older_version_again(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 20, channel="Paid Search"),
        teller.touch("nora", 3, channel="Email"),
        teller.conversion("nora", 0, 100, external_id="order"),
    )
    await put(attribution, "mine", RECENT)
    await put(attribution, "mine", {"title": "All alike"})
    await run_until_backfilled(attribution, "mine")
    assert await values(attribution, "mine") == {"Email": 50, "Paid Search": 50}
    answer = await attribution.client.post("/v1/models/mine:activate", json={"version": 1})
    assert (answer.status_code, answer.json()["active"]) == (200, True)
    await run_until_backfilled(attribution, "mine")
    assert await values(attribution, "mine") == {"Email": 100}
    path = f"/v1/conversions/{teller.conversion_id('order')}/credits"
    assert (await attribution.client.get(path, params={"model": "mine"})).json()["model_version"] == 1
    versions = (await attribution.client.get("/v1/models/mine/versions")).json()["items"]
    assert [(one["version"], one["active"]) for one in versions] == [(2, False), (1, True)]
    back = await attribution.client.post("/v1/models/mine:rollback", json={"reason": "as it was"})
    assert (back.status_code, back.json()["version"], back.json()["building"]["version"]) == (200, 2, 2)
    await run_until_backfilled(attribution, "mine")
    assert await values(attribution, "mine") == {"Email": 50, "Paid Search": 50}
    activations = (await attribution.client.get("/v1/models/mine/activations")).json()["items"]
    assert [(one["version"], one["reason"]) for one in activations] == [(2, "as it was"), (1, ""), (2, ""), (1, "")]


async def test_versions_are_compared_and_changes_of_what_another_changed_are_refused(attribution: Harness) -> None:
    await put(attribution, "mine", RECENT)
    await put(attribution, "mine", {**RECENT, "half_life_days": 3}, draft=True)
    path = "/v1/models/mine"
    assert (await attribution.client.get(f"{path}:diff")).json()["patch"] == [
        {"op": "replace", "path": "/half_life_days", "value": 3.0}
    ]
    assert (await attribution.client.post(f"{path}:diff", json=RECENT)).json()["same"] is True
    assert (await attribution.client.post(f"{path}:diff", json={"base": "liner"})).status_code == 422
    wrong = (await attribution.client.post(f"{path}:validate", json={"rules": [{"when": "x", "multiply": 1}]})).json()
    assert (wrong["valid"], [one["pointer"] for one in wrong["errors"]]) == (False, ["/rules/0/when"])
    tag = (await attribution.client.get(path)).headers["etag"]
    statuses = [
        (await attribution.client.put(path, json={"title": title}, headers={"if-match": tag})).status_code
        for title in ("mine", "theirs")
    ]
    assert statuses == [200, 409]
    behind = {"version": 1, "at": "2020-01-01T00:00:00Z"}
    assert (await attribution.client.post(f"{path}:activate", json=behind)).json()["errors"][0]["pointer"] == "/at"
    assert (await attribution.client.post("/v1/models/linear:rollback", json={})).status_code == 422
    assert (await attribution.client.get("/v1/models/nobody:diff")).status_code == 404


async def test_draft_changes_nothing(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(teller.touch("nora", 20, channel="Paid Search"), teller.conversion("nora", 0, 100))
    before = await values(attribution, "engaged")
    assert (await put(attribution, "engaged", RECENT, draft=True))["active"] is False
    await run_until_backfilled(attribution, "engaged")
    assert await values(attribution, "engaged") == before


async def test_longer_lookback_reaches_older_touches(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(teller.touch("nora", 400, channel="Referral"), teller.conversion("nora", 0, 100))
    await put(attribution, "ever", {"title": "Ever", "lookback_days": None})
    await run_until_backfilled(attribution, "ever")
    assert await values(attribution, "ever") == {"Referral": 100}
    assert await values(attribution, "linear") == {"(unattributed)": 100}
    await attribution.deliver(teller.touch("nora", 300, channel="Email"))
    assert await values(attribution, "ever") == {"Email": 50, "Referral": 50}


async def test_what_a_model_would_change_is_told_without_changing_it(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 20, channel="Paid Search"),
        teller.touch("nora", 3, channel="Email"),
        teller.conversion("nora", 0, 100),
        teller.conversion("nora", 0, 7, currency="USD"),
    )
    answer = await attribution.client.post("/v1/models/engaged:simulate", json={"document": RECENT, "days": 3_660})
    assert answer.status_code == 200, answer.text
    assert answer.json()["conversions"] == 2
    assert answer.json()["rows"][0] == {
        "currency": "EUR",
        "key": "Email",
        "before": {"conversions": 0.5, "value_minor": 50},
        "after": {"conversions": 1, "value_minor": 100},
    }
    assert (await attribution.client.get("/v1/models/engaged")).json()["version"] == 1
    saved = await attribution.client.post("/v1/models/engaged:simulate", json={"version": 1, "days": 3_660})
    assert all(row["before"] == row["after"] for row in saved.json()["rows"])
    assert (await attribution.client.post("/v1/models/engaged:simulate", json={})).status_code == 422
    assert (await attribution.client.post("/v1/models/engaged:simulate", json={"version": 9})).status_code == 404


@pytest.mark.parametrize("days", [5, 20, 90])
async def test_many_conversions_tried_at_once_are_what_each_is_anew(attribution: Harness, days: int) -> None:
    for seed in range(20):
        await attribution.deliver(*random_history(seed))
    for base in (*(model.base for model in filter(divides, BUILT_IN.values())),):
        document = {"base": base, "lookback_days": days}
        anew = document | {"rules": [{"when": "index > 100000", "multiply": 3}]}
        tried = [
            (
                await attribution.client.post(f"/v1/models/{base}x:simulate", json={"document": each, "days": 3_660})
            ).json()
            for each in (document, anew)
        ]
        assert tried[0]["conversions"] > 50
        assert tried[0] == tried[1], base


async def test_credits_by_a_model_that_is_not_computed_yet_are_asked_for_again(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(teller.conversion("nora", 0, 100, external_id="order"))
    await put(attribution, "mine", RECENT)
    path = f"/v1/conversions/{teller.conversion_id('order')}/credits"
    answer = await attribution.client.get(path, params={"model": "mine"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await run_until_backfilled(attribution, "mine")
    assert (await attribution.client.get(path, params={"model": "mine"})).status_code == 200


async def test_walk_begins_anew_on_another_projection(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(teller.touch("nora", 2, channel="Email"), teller.conversion("nora", 0, 100))
    async with attribution.runtime.database.transaction() as tx:
        await tx.connection.execute("UPDATE projections SET version = version + 1")
        await tx.connection.execute("TRUNCATE credits, credit_sums, campaign_sums, channel_sums")
        await tx.connection.execute("INSERT INTO credits VALUES (999, 'gone', '{}', '{}')")
    await attribution.run_timers()
    assert (await attribution.client.get("/v1/models/engaged")).json()["serving"]["done"] == 1
    assert await values(attribution, "linear") == {"Email": 100}
    async with attribution.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM credits WHERE run = 999") == 0


@pytest.mark.parametrize(
    ("document", "status", "pointer", "column"),
    [
        ({"title": "x", "rules": [{"when": "touch.chanel == 'x'", "multiply": 1}]}, 422, "/rules/0/when", 7),
        ({"title": "x", "rules": [{"when": "index + 1", "multiply": 1}]}, 422, "/rules/0/when", 1),
        ({"title": "x", "rules": [{"when": "true", "multiply": -1}]}, 422, "/rules/0/multiply", None),
        ({"title": "x", "base": "best"}, 422, "/base", None),
        ({"base": "shapley", "rules": [{"when": "true", "multiply": 2}]}, 422, "/rules", None),
        ({"base": "markov", "order": 5}, 422, "/order", None),
        ({"base": "shapley", "order": 2}, 422, "/order", None),
        ({"base": "markov", "game": "subset_rate"}, 422, "/game", None),
        ({"base": "position_based", "weights": {"first": -1, "last": 2}}, 422, "/weights/first", None),
        ({"base": "position_based", "weights": {"first": 0}}, 422, "/weights", None),
        ({"base": "position_based", "weights": {"lead": 1}}, 422, "/weights", None),
        ({"base": "position_based", "weights": [1]}, 422, "/weights", None),
        ({"base": "linear", "weights": [1, 1, 1]}, 422, "/weights", None),
        ({"lookback_days": -1}, 422, "/lookback_days", None),
        ({"half_life_days": 0}, 422, "/half_life_days", None),
        ({"title": "x\x00"}, 422, "/title", None),
        ({"title": "x", "colour": "red"}, 422, "/colour", None),
        ([], 422, "", None),
    ],
)
async def test_model_that_cannot_work_is_refused_at_the_fault(
    attribution: Harness, document: Any, status: int, pointer: str, column: int | None
) -> None:
    answer = await attribution.client.put("/v1/models/mine", json=document)
    assert answer.status_code == status
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error.get("column")) == (pointer, column)
    assert (await attribution.client.get("/v1/models/mine")).status_code == 404


@pytest.mark.parametrize("name", ["linear", "markov", "j_shaped"])
async def test_names_with_a_meaning_are_not_given_away(attribution: Harness, name: str) -> None:
    answer = await attribution.client.put(f"/v1/models/{name}", json=RECENT)
    assert answer.json()["type"] == "urn:throughline:problem:attribution:shipped-model"


async def test_broken_json_is_said_to_be_that(attribution: Harness) -> None:
    answer = await attribution.client.put("/v1/models/mine", content=b'{"title":')
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:throughline:problem:invalid-request"
