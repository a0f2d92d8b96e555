"""Touches and money through the API on real PostgreSQL: kept by the good item, named by the caller's own ids."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from services.capture.facts.domain import conversion_id_of
from shared.events import (
    ConversionRecorded,
    CostRecorded,
    IdentityLinked,
    PersonKeyCreated,
    RefundRecorded,
    TouchPersonal,
    TouchRecorded,
)
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture, ago
from throughline.services import service_code

ANN = "ann@example.com"
URL = "https://acme.test/pricing?utm_source=google&utm_medium=cpc&utm_campaign=brand&gclid=abc&email=ann%40example.com"
MONEY = {"type": "purchase", "value_minor": 4_990, "currency": "EUR"}


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def test_a_touch_is_kept_with_what_its_address_tells_and_nothing_personal_in_clear(capture: Capture) -> None:
    body = {
        "anonymous_id": "browser-1",
        "type": "page_view",
        "url": URL,
        "referrer": "https://www.Google.com/search?q=ann",
        "occurred_at": ago(hours=1),
        "properties": {"note": "call ann"},
    }
    response = await capture.post("touches", body)
    assert (response.status_code, response.json()) == (202, {"accepted": 1, "rejected": []})
    (touch,) = await capture.harness.told(TouchRecorded)
    assert touch.lead_id == capture.harness.runtime.ids.of_anonymous_id("browser-1")
    assert (touch.source, touch.medium, touch.campaign, touch.click_ids) == ("google", "cpc", "brand", ("gclid",))
    assert (touch.page, touch.referrer_host) == ("https://acme.test/pricing", "www.google.com")
    assert touch.occurred_at.isoformat() == ago(hours=1)
    clear = touch.model_copy(update={"personal": None}).encode().decode()
    assert not any(word in clear for word in ("ann", "browser-1", "gclid=abc"))
    async with capture.harness.runtime.database.reading() as connection:
        opened = await capture.harness.runtime.keys.open_many(connection, [(touch.lead_id, touch.personal)])
    assert opened[0] is not None
    personal = TouchPersonal.model_validate_json(opened[0])
    assert (personal.url, personal.anonymous_id, personal.properties) == (URL, "browser-1", {"note": "call ann"})
    assert [event.lead_id for event in await capture.harness.told(PersonKeyCreated)] == [touch.lead_id]


async def test_the_good_items_of_a_batch_are_kept_and_the_bad_ones_named(capture: Capture) -> None:
    good = {"email": ANN, "type": "page_view"}
    batch: list[Any] = [
        good,
        {"type": "page_view"},
        {"email": "nobody", "type": "page_view"},
        {**good, "type": "Page View"},
        {**good, "occurred_at": "2099-01-01T00:00:00Z"},
        {**good, "campain": "x"},
        {**good, "source": "a\x00b"},
        "touch",
        {**good, "lead_id": "4"},
        {**good, "touch_id": "t-1"},
    ]
    response = await capture.post("touches", {"touches": batch})
    assert response.status_code == 202
    body = response.json()
    assert body["accepted"] == 2
    assert [problem["index"] for problem in body["rejected"]] == list(range(1, 9))
    assert {problem["errors"][0]["pointer"] for problem in body["rejected"]} == {
        "/touches/1/lead_id",
        "/touches/2/email",
        "/touches/3/type",
        "/touches/4/occurred_at",
        "/touches/5/campain",
        "/touches/6/source",
        "/touches/7",
        "/touches/8/lead_id",
    }
    assert all(problem["status"] == 422 and problem["type"].startswith("urn:") for problem in body["rejected"])
    assert len(await capture.harness.told(TouchRecorded)) == 2


async def test_a_single_bad_touch_and_a_batch_without_a_good_one_are_422(capture: Capture) -> None:
    alone = await capture.post("touches", {"email": "nobody", "type": "page_view"})
    assert (alone.status_code, alone.json()["errors"][0]["pointer"]) == (422, "/email")
    both = await capture.post("touches", {"touches": [{"type": "page_view"}, {"email": ANN}]})
    assert both.status_code == 422
    assert [error["pointer"] for error in both.json()["errors"]] == ["/touches/0/lead_id", "/touches/1/type"]
    for touches in ([], [{"email": ANN, "type": "page_view"}] * 1_001, "x"):
        response = await capture.post("touches", {"touches": touches})
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/touches")
    assert await capture.harness.told(TouchRecorded) == []


async def test_a_batch_of_a_thousand_is_kept_in_order(capture: Capture) -> None:
    batch = [{"email": ANN, "type": "page_view", "touch_id": f"t-{n}"} for n in range(1_000)]
    response = await capture.post("touches", {"touches": batch})
    assert response.json() == {"accepted": 1_000, "rejected": []}
    assert [touch.touch_id for touch in await capture.harness.told(TouchRecorded)] == [f"t-{n}" for n in range(1_000)]


async def test_the_same_touch_id_and_content_is_the_same_fact_and_other_content_another(capture: Capture) -> None:
    for campaign in ("a", "a", "b"):
        await capture.post("touches", {"email": ANN, "type": "page_view", "touch_id": "t-1", "campaign": campaign})
    first, again, corrected = await capture.harness.told(TouchRecorded)
    assert first.event_id == again.event_id != corrected.event_id
    assert first.touch_id == corrected.touch_id == "t-1"


async def test_a_well_formed_lead_id_is_taken_before_it_is_known(capture: Capture) -> None:
    lead_id = "0DB2ED11-1F5C-8C3E-9A6B-000000000001"
    assert (await capture.post("touches", {"lead_id": lead_id, "type": "page_view"})).status_code == 202
    (touch,) = await capture.harness.told(TouchRecorded)
    assert touch.lead_id == lead_id.lower()


async def test_a_touch_that_names_a_browser_and_a_person_links_them_but_not_every_second(capture: Capture) -> None:
    def seen(email: str, **ago_: float) -> dict[str, Any]:
        return {"email": email, "anonymous_id": "browser-1", "type": "page_view", "occurred_at": ago(**ago_)}

    for touch in (seen(ANN, seconds=300), seen(ANN, seconds=290), seen("ben@example.com", seconds=280)):
        await capture.post("touches", touch)
    await capture.post("touches", {"touches": [seen(ANN, seconds=270), seen(ANN, seconds=100)]})
    ids = capture.harness.runtime.ids
    links = await capture.harness.told(IdentityLinked)
    assert [(link.lead_id, link.occurred_at.isoformat()) for link in links] == [
        (ids.of_email(ANN), ago(seconds=300)),
        (ids.of_email("ben@example.com"), ago(seconds=280)),
        (ids.of_email(ANN), ago(seconds=270)),
        (ids.of_email(ANN), ago(seconds=100)),
    ]
    assert {link.anonymous_lead_id for link in links} == {ids.of_anonymous_id("browser-1")}


async def test_an_idempotent_retry_of_touches_keeps_them_once(capture: Capture) -> None:
    body = {"touches": [{"email": ANN, "type": "page_view"}] * 3}
    first = await capture.post("touches", body, idempotency_key="k-1")
    again = await capture.post("touches", body, idempotency_key="k-1")
    assert first.json() == again.json() == {"accepted": 3, "rejected": []}
    assert len(await capture.harness.told(TouchRecorded)) == 3


async def test_conversions_and_refunds_are_named_by_their_external_ids(capture: Capture) -> None:
    made = await capture.post("conversions", {"email": ANN, "external_id": "o-1", **MONEY})
    assert (made.status_code, made.json()) == (202, {"conversion_id": conversion_id_of("api", "o-1")})
    refund = {"external_id": "o-1", "refund_id": "r-1", "amount_minor": 990, "currency": "EUR"}
    assert (await capture.post("refunds", refund)).status_code == 202
    assert (await capture.post("refunds", {**refund, "source": "shop"})).status_code == 202
    (conversion,) = await capture.harness.told(ConversionRecorded)
    assert (conversion.lead_id, conversion.value_minor) == (capture.harness.runtime.ids.of_email(ANN), 4_990)
    ours, the_shops = await capture.harness.told(RefundRecorded)
    assert (ours.conversion_id, ours.origin) == (conversion.conversion_id, "api")
    assert (the_shops.conversion_id, the_shops.origin) == (conversion_id_of("shop", "o-1"), "shop")


async def test_money_goes_back_to_what_it_was_where_the_request_says_that_it_is_another(capture: Capture) -> None:
    order = {"email": ANN, "external_id": "o-1", "type": "purchase", "currency": "EUR", "occurred_at": ago(hours=1)}
    refund = {"external_id": "o-1", "refund_id": "r-1", "currency": "EUR"}
    for path, body, name in (("conversions", order, "value_minor"), ("refunds", refund, "amount_minor")):
        for number, value in enumerate([100, 200, 100]):
            await capture.post(path, {**body, name: value})  # the third says what the first did
            for _ in range(2):
                answer = await capture.post(path, {**body, name: value}, idempotency_key=f"{path}-{number}")
                assert answer.status_code == 202
    for kind, field in ((ConversionRecorded, "value_minor"), (RefundRecorded, "amount_minor")):
        told = {event.event_id: getattr(event, field) for event in await capture.harness.told(kind)}
        assert list(told.values()) == [100, 100, 200, 200, 100]


async def test_the_good_costs_of_a_batch_are_kept_also_when_they_go_back_to_what_they_were(capture: Capture) -> None:
    cost = {"date": "2026-11-01", "channel": "Paid Search", "amount_minor": 1_000, "currency": "EUR"}
    for amount in (1_000, 1_200, 1_000):
        await capture.post("costs", {"costs": [{**cost, "amount_minor": amount}]})
    mixed = await capture.post("costs", {"costs": [{**cost, "currency": "EURO"}, cost, {**cost, "amount_minor": -1}]})
    assert (mixed.status_code, mixed.json()["accepted"]) == (202, 1)
    assert [problem["errors"][0]["pointer"] for problem in mixed.json()["rejected"]] == [
        "/costs/0/currency",
        "/costs/2/amount_minor",
    ]
    costs = await capture.harness.told(CostRecorded)
    assert [event.amount_minor for event in costs] == [1_000, 1_200, 1_000, 1_000]
    assert len({event.event_id for event in costs}) == 4


@pytest.mark.parametrize("path", ["touches", "conversions", "refunds", "costs", "leads"])
async def test_a_body_over_the_limit_is_413_and_nothing_is_stored(capture: Capture, path: str) -> None:
    response = await capture.post(path, {"email": ANN, "type": "x" * 2_100_000})
    assert (response.status_code, response.headers["content-type"]) == (413, "application/problem+json")
    assert await capture.rows("SELECT 1 FROM event_log") == []
