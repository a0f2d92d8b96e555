"""Who earns, told over HTTP after facts that come late, get corrected, or turn out to be somebody else's."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.models.domain import BUILT_IN
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import NOW, Teller
from throughline.services import service_code

MODELS = (*BUILT_IN, "engaged")


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


@pytest.fixture
def teller() -> Teller:
    return Teller()


async def get(service: Harness, path: str, **query: Any) -> Any:
    answer = await service.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def earned(
    service: Harness, teller: Teller, external_id: str = "order", model: str = "linear"
) -> dict[str | None, int]:
    """What each touch earned."""
    path = f"/v1/conversions/{teller.conversion_id(external_id)}/credits"
    found = await get(service, path, model=model)
    if not found["whole"]:
        assert sum(credit["value_minor"] for credit in found["credits"]) == found["value_minor"]
        assert sum(credit["share"] for credit in found["credits"]) == pytest.approx(1)
    return {credit["touch_id"]: credit["value_minor"] for credit in found["credits"]}


async def test_every_model_divides_a_won_deal_to_the_cent(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 20, touch_id="ad", channel=None, source="google", medium="cpc", campaign="autumn"),
        teller.captured("nora", 15),
        teller.touch("nora", 15, touch_id="form", channel="Referral", kind="form_submitted"),
        teller.touch("nora", 8, touch_id="mail", channel="Email", kind="email_opened"),
        teller.deal("deal-1", "nora", 8),
        teller.touch("nora", 1, touch_id="visit", channel=None),
        teller.conversion("nora", 0, 100_001, external_id="deal-1", deal_id="deal-1"),
    )
    found = {model: await earned(attribution, teller, "deal-1", model) for model in MODELS}
    assert found["first_touch"] == {"ad": 100_001}
    assert found["last_touch"] == {"visit": 100_001}
    assert found["last_non_direct"] == {"mail": 100_001}
    assert found["linear"] == {"ad": 25_001, "form": 25_000, "mail": 25_000, "visit": 25_000}
    assert found["position_based"] == {"ad": 40_001, "form": 10_000, "mail": 10_000, "visit": 40_000}
    assert found["j_shaped"] == {"ad": 20_000, "form": 10_000, "mail": 10_000, "visit": 60_001}
    assert found["inverse_j"] == {"ad": 60_001, "form": 10_000, "mail": 10_000, "visit": 20_000}
    assert found["u_shaped_lead"] == {"ad": 40_001, "form": 40_000, "mail": 10_000, "visit": 10_000}
    assert found["participation"] == dict.fromkeys(("ad", "form", "mail", "visit"), 100_001)
    assert found["w_shaped"] == {"ad": 30_001, "form": 30_000, "mail": 30_000, "visit": 10_000}
    assert found["full_path"] == {"ad": 25_001, "form": 25_000, "mail": 25_000, "visit": 25_000}
    weights = {"ad": 2 ** (-20 / 7), "form": 2 ** (-15 / 7), "mail": 2 ** (-8 / 7), "visit": 2 ** (-1 / 7)}
    assert {
        name: abs(found["time_decay"][name] - 100_001 * weights[name] / sum(weights.values())) < 1 for name in weights
    }
    assert found["engaged"] == {"ad": 23_530, "form": 47_059, "mail": 5_882, "visit": 23_530}


async def test_late_touch_changes_the_credit_of_the_conversions_it_may_have_led_to(
    attribution: Harness, teller: Teller
) -> None:
    await attribution.deliver(
        teller.touch("nora", 10, touch_id="first"),
        teller.conversion("nora", 95, 700, external_id="long-ago"),
        teller.conversion("nora", 5, 900, external_id="order"),
    )
    assert await earned(attribution, teller) == {"first": 900}
    await attribution.deliver(teller.touch("nora", 7, touch_id="late"))
    assert await earned(attribution, teller) == {"first": 450, "late": 450}
    assert await earned(attribution, teller, "long-ago") == {None: 700}


async def test_lookback_includes_both_ends(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 93, touch_id="ninety-days-before"),
        teller.touch("nora", 93.00001, touch_id="older"),
        teller.touch("nora", 3, touch_id="same-instant"),
        teller.touch("nora", 2.99999, touch_id="after"),
        teller.conversion("nora", 3, 1_000, external_id="order"),
    )
    assert await earned(attribution, teller) == {"ninety-days-before": 500, "same-instant": 500}
    explained = await get(attribution, f"/v1/conversions/{teller.conversion_id('order')}/explain")
    assert {other["touch_id"]: other["reason"] for other in explained["others"]} == {
        "older": "too_old",
        "after": "after_conversion",
    }


async def test_conversion_without_touches_is_kept_unattributed(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(teller.conversion("nora", 0, 4_200, external_id="order"))
    found = await get(attribution, f"/v1/conversions/{teller.conversion_id('order')}/credits", model="time_decay")
    (credit,) = found["credits"]
    assert (credit["touch_id"], credit["channel"], credit["share"], credit["value_minor"]) == (
        None,
        "(unattributed)",
        1.0,
        4_200,
    )


async def test_merge_joins_two_journeys_and_unmerge_parts_them(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, touch_id="hers"),
        teller.touch("n.smith", 3, touch_id="the-other-one's"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    )
    assert await earned(attribution, teller) == {"hers": 1_000}
    await attribution.deliver(teller.merged("n.smith", "nora", days_before=0.5))
    assert await earned(attribution, teller) == {"hers": 500, "the-other-one's": 500}
    await attribution.deliver(teller.touch("n.smith", 2, touch_id="late"))
    assert await earned(attribution, teller) == {"hers": 334, "the-other-one's": 333, "late": 333}
    await attribution.deliver(teller.unmerged("n.smith", "nora", days_before=0.4))
    assert await earned(attribution, teller) == {"hers": 1_000}


async def test_identifying_a_browser_joins_its_past_and_future(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("browser", 5, touch_id="before"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
        teller.linked("browser", "nora", days_before=3),
    )
    assert await earned(attribution, teller) == {"before": 1_000}
    await attribution.deliver(teller.touch("browser", 2, touch_id="after"))
    assert await earned(attribution, teller) == {"before": 500, "after": 500}


async def test_shared_browser_gives_each_touch_to_who_was_identified_last(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("browser", 9, touch_id="before-anyone"),
        teller.touch("browser", 7, touch_id="while-hers"),
        teller.touch("browser", 4, touch_id="while-his"),
        teller.conversion("nora", 1, 1_000, external_id="hers"),
        teller.conversion("otto", 1, 600, external_id="his"),
        teller.linked("browser", "nora", days_before=8),
        teller.linked("browser", "otto", days_before=5),
    )
    assert await earned(attribution, teller, "hers") == {"before-anyone": 500, "while-hers": 500}
    assert await earned(attribution, teller, "his") == {"while-his": 600}


async def test_correction_of_a_value_rescales_the_credits(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="a"),
        teller.touch("nora", 2, touch_id="b"),
        teller.conversion("nora", 1, 1_001, external_id="order"),
    )
    assert await earned(attribution, teller) == {"a": 501, "b": 500}
    await attribution.deliver(teller.conversion("nora", 1, 2_000, external_id="order"))
    assert await earned(attribution, teller) == {"a": 1_000, "b": 1_000}


async def test_correction_received_first_stays(attribution: Harness, teller: Teller) -> None:
    stale = teller.conversion("nora", 1, 1_000, external_id="order")
    corrected = teller.conversion("nora", 1, 2_000, external_id="order")
    await attribution.deliver(corrected, teller.touch("nora", 2, touch_id="a"))
    await attribution.deliver(stale)
    assert await earned(attribution, teller) == {"a": 2_000}


async def test_refunds_lower_the_value_and_never_below_zero(attribution: Harness, teller: Teller) -> None:
    order = str(teller.conversion_id("order"))
    await attribution.deliver(teller.refund("order", 300, refund_id="came-first"))
    assert (await attribution.client.get(f"/v1/conversions/{order}")).status_code == 404
    await attribution.deliver(
        teller.touch("nora", 2, touch_id="a"), teller.conversion("nora", 1, 1_000, external_id="order")
    )
    assert await earned(attribution, teller) == {"a": 700}
    await attribution.deliver(teller.refund("order", 400, refund_id="came-first"))
    assert await earned(attribution, teller) == {"a": 600}
    await attribution.deliver(teller.refund("order", 50, refund_id="dollars", currency="USD"))
    assert await earned(attribution, teller) == {"a": 600}
    await attribution.deliver(teller.refund("order", 9_999))
    assert await earned(attribution, teller) == {"a": 0}
    assert (await get(attribution, f"/v1/conversions/{order}"))["value_minor"] == 0


async def test_corrected_touch_leaves_its_old_place(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="moved"),
        teller.touch("nora", 2, touch_id="stays"),
        teller.conversion("nora", 1, 1_000, external_id="hers"),
        teller.conversion("otto", 1, 1_000, external_id="his"),
    )
    assert await earned(attribution, teller, "hers") == {"moved": 500, "stays": 500}
    await attribution.deliver(teller.touch("otto", 3, touch_id="moved"))
    assert await earned(attribution, teller, "hers") == {"stays": 1_000}
    assert await earned(attribution, teller, "his") == {"moved": 1_000}


async def test_milestones_that_are_told_late_move_the_shaped_models(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 9, touch_id="a"),
        teller.touch("nora", 6, touch_id="b"),
        teller.touch("nora", 3, touch_id="c"),
        teller.conversion("nora", 1, 1_000, external_id="order", deal_id="d1"),
    )
    assert await earned(attribution, teller, model="w_shaped") == {"a": 750, "b": 125, "c": 125}
    await attribution.deliver(teller.captured("nora", 5, revision=1))
    assert await earned(attribution, teller, model="w_shaped") == {"a": 429, "b": 428, "c": 143}
    await attribution.deliver(teller.deal("d1", "nora", 2))
    assert await earned(attribution, teller, model="w_shaped") == {"a": 334, "b": 333, "c": 333}
    assert await earned(attribution, teller) == {"a": 334, "b": 333, "c": 333}


async def test_what_a_machine_opened_earns_nothing(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="read"),
        teller.touch("nora", 2, touch_id="scanned", automated=True),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    )
    assert await earned(attribution, teller) == {"read": 1_000}


@pytest.mark.parametrize("way", ["withdrawn", "corrected"])
async def test_a_touch_that_was_a_machines_loses_its_credit_and_stays_in_the_journey_with_the_reason(
    attribution: Harness, teller: Teller, way: str
) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="read"),
        teller.touch("nora", 2, touch_id="scanned", channel="Paid Search"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    )
    assert await earned(attribution, teller, "order") == {"read": 500, "scanned": 500}
    robot: dict[str, Any] = {"channel": "Paid Search", "automated": True, "automated_reason": "a scanner"}
    await attribution.deliver(
        teller.withdrawn("scanned") if way == "withdrawn" else teller.touch("nora", 2, touch_id="scanned", **robot)
    )
    assert await earned(attribution, teller, "order") == {"read": 1_000}
    journey = await get(attribution, f"/v1/leads/{teller.lead('nora')}/journey")
    assert [(one["touch_id"], one["automated"], one["automated_reason"]) for one in journey["touches"]] == [
        ("read", False, None),
        ("scanned", True, "a scanner"),
    ]
    explained = await get(attribution, f"/v1/conversions/{teller.conversion_id('order')}/explain?model=linear")
    against = [(one["touch_id"], one["reason"], one["automated_reason"]) for one in explained["others"]]
    assert ("scanned", "automated", "a scanner") in against
    (change,) = explained["history"]["items"]
    (came,) = change["came"]
    assert (came["what"], came["touch_id"], came["reason"]) == (f"touch_{way}", "scanned", "a scanner")
    moved = {one["channel"]: (one["before"]["value_minor"], one["after"]["value_minor"]) for one in change["credits"]}
    assert moved == {"Email": (500, 1_000), "Paid Search": (500, 0)}


async def test_a_withdrawal_before_its_touch_and_a_correction_after_it_change_nothing(
    attribution: Harness, teller: Teller
) -> None:
    await attribution.deliver(teller.withdrawn("scanned"))
    await attribution.deliver(
        teller.touch("nora", 2, touch_id="scanned"), teller.conversion("nora", 1, 1_000, external_id="order")
    )
    await attribution.deliver(teller.touch("nora", 3, touch_id="scanned", channel="Direct"))
    assert await earned(attribution, teller, "order") == {None: 1_000}


async def test_explanation_tells_what_counted_and_what_came_late(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="a"),
        teller.captured("nora", 2.5),
        teller.conversion("nora", 1, 1_000, external_id="order"),
        teller.touch("nora", 2, touch_id="b"),
    )
    explained = await get(attribution, f"/v1/conversions/{teller.conversion_id('order')}/explain")
    assert [(one["touch_id"], one["late"], one["milestones"]) for one in explained["touches"]] == [
        ("a", False, ["first", "lead"]),
        ("b", True, ["close"]),
    ]
    earned_first = {
        "weight": "1",
        "milestones": ["first", "lead"],
        "share": 1.0,
        "value_minor": 1_000,
        "model_version": 0,
    }
    assert explained["touches"][0]["earned"]["first_touch"] == earned_first
    assert "first_touch" not in explained["touches"][1]["earned"]
    assert explained["touches"][1]["earned"]["engaged"]["model_version"] == 1


async def test_erasure_takes_identity_and_keeps_counts_and_credit(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="a", page="https://shop.example/nora", content="for-nora"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
        teller.erased("nora"),
        teller.touch("nora", 2, touch_id="late", page="https://shop.example/nora"),
    )
    journey = await get(attribution, f"/v1/leads/{teller.lead('nora')}/journey")
    assert {(touch["touch_id"], touch["page"], touch["content"]) for touch in journey["touches"]} == {
        ("a", None, None),
        ("late", None, None),
    }
    assert await earned(attribution, teller) == {"a": 500, "late": 500}


async def test_journey_comes_in_pages_and_by_any_id_or_the_address(attribution: Harness, teller: Teller) -> None:
    email = "nora@example.com"
    nora = attribution.runtime.ids.of_email(email)
    own = [teller.touch("browser", days, touch_id=f"t{days:03}") for days in range(7)]
    hers = teller.conversion("browser", 0, 500, external_id="order")
    link = teller.linked("browser", "x", days_before=3).model_copy(update={"lead_id": nora})
    await attribution.deliver(*own, hers, link)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"email": email, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = await get(attribution, "/v1/journey", **query)
        assert page["lead_id"] == nora
        assert [one["external_id"] for one in page["conversions"]] == ["order"]
        seen += [touch["touch_id"] for touch in page["touches"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"t{days:03}" for days in reversed(range(7))]
    by_browser = await get(attribution, f"/v1/leads/{teller.lead('browser')}/journey", limit=1_000)
    assert [touch["touch_id"] for touch in by_browser["touches"]] == seen
    listed = await get(attribution, "/v1/conversions", email=email)
    assert [one["external_id"] for one in listed["items"]] == ["order"]
    credited = await get(attribution, "/v1/credits", email=email, model="last_touch")
    assert [credit["touch_id"] for credit in credited["items"][0]["credits"]] == ["t000"]


async def test_touch_tells_its_channel_and_the_rule_that_decided(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="a", channel=None, referrer_host="www.google.de"),
        teller.touch("nora", 2, touch_id="b", channel=None, click_ids=("gclid",)),
        teller.touch("nora", 1, touch_id="c", channel="Webinar"),
    )
    journey = await get(attribution, f"/v1/leads/{teller.lead('nora')}/journey")
    assert [(one["channel"], one["channel_rule"], one["source"], one["medium"]) for one in journey["touches"]] == [
        ("Organic Search", "organic_search:referrer", "google", "organic"),
        ("Paid Search", "paid_search:gclid", "google", "cpc"),
        ("Webinar", "caller", None, None),
    ]


async def test_same_touch_name_of_two_sources_is_two_touches(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="1", origin="api"),
        teller.touch("nora", 3, touch_id="1", origin="shop"),
        teller.conversion("nora", 1, 101, external_id="order"),
    )
    path = f"/v1/conversions/{teller.conversion_id('order')}/credits"
    found = (await get(attribution, path, model="linear"))["credits"]
    assert [(credit["origin"], credit["value_minor"]) for credit in found] == [("api", 51), ("shop", 50)]


async def test_times_are_those_of_the_facts(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(teller.touch("nora", 3, touch_id="a"))
    (touch,) = (await get(attribution, f"/v1/leads/{teller.lead('nora')}/journey"))["touches"]
    assert touch["occurred_at"] == (NOW - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
