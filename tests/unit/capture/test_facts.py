"""Touches and money as facts: what stands in clear, and which id they get."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from services.capture.facts.domain import (
    Visit,
    conversion_fact,
    conversion_id_of,
    encode_touch,
    host_of,
    refund_fact,
    visit_at,
)
from services.capture.facts.inputs import ConversionInput, RefundInput, TouchFields
from services.capture.facts.links import ToldLinks
from shared.events import TouchRecorded
from shared.ids import LeadId
from shared.personal import Encoded

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEAD = LeadId("lead-1")


def draft(**fields: Any) -> Encoded:
    touch = TouchFields(**{"type": "page_view"} | fields)
    return encode_touch(touch, lead_id=LEAD, occurred_at=NOW, received_at=NOW)


def touch_of(made: Encoded) -> TouchRecorded:
    return TouchRecorded.decode(made.value)


def test_what_the_caller_says_of_the_visit_goes_before_what_the_address_says() -> None:
    url = "https://a.test/x?utm_source=google&utm_medium=cpc&utm_campaign=c&utm_content=d&GCLID=1&fbclid=2#top"
    touch = touch_of(draft(url=url, source="partner"))
    assert (touch.source, touch.medium, touch.campaign, touch.content) == ("partner", "cpc", "c", "d")
    assert (touch.page, touch.click_ids) == ("https://a.test/x", ("fbclid", "gclid"))


@pytest.mark.parametrize(("kind", "calm"), [("page_view", True), ("email_opened", True), ("demo_requested", False)])
def test_nobody_waits_for_what_comes_by_itself(kind: str, calm: bool) -> None:
    assert draft(type=kind).calm is calm


def test_an_address_without_a_query_is_not_personal() -> None:
    made = draft(url="https://a.test/x")
    assert (touch_of(made).page, made.personal) == ("https://a.test/x", None)


def test_queries_fragments_and_properties_are_personal() -> None:
    made = draft(url="https://a.test/x#ann", referrer="https://b.test/?q=ann", properties={"n": 1})
    assert made.personal is not None
    assert orjson.loads(made.personal) == {
        "url": "https://a.test/x#ann",
        "referrer": "https://b.test/?q=ann",
        "properties": {"n": 1},
    }
    assert b"ann" not in made.value


def test_what_own_people_did_counts_for_nothing_and_is_another_content_of_the_same_touch() -> None:
    ours, theirs = draft(touch_id="t", internal=True), draft(touch_id="t")
    told = touch_of(ours)
    assert (told.automated, told.automated_reason, ours.event_id == theirs.event_id) == (True, "internal", False)


def test_a_touch_without_a_name_gets_one_of_its_own_each_time() -> None:
    first, second = touch_of(draft()), touch_of(draft())
    assert str(first.event_id) == str(first.touch_id) != str(second.touch_id)


def test_the_same_name_and_content_make_the_same_fact() -> None:
    first, same, other = (touch_of(draft(touch_id="t", campaign=campaign)) for campaign in ("a", "a", "b"))
    assert first.event_id == same.event_id != other.event_id


def test_a_conversion_is_named_by_origin_and_external_id_and_its_fact_by_the_content_too() -> None:
    said: dict[str, Any] = {"email": "a@example.com", "external_id": "o-1", "type": "purchase", "currency": "EUR"}
    first, same, corrected = (
        conversion_fact(ConversionInput(value_minor=value, **said), LEAD, NOW + timedelta(hours=hour))
        for value, hour in ((1, 0), (1, 5), (2, 6))
    )
    assert first.event_id == same.event_id != corrected.event_id
    assert first.conversion_id == corrected.conversion_id == conversion_id_of("api", "o-1")
    assert (
        conversion_fact(ConversionInput(value_minor=1, **said), LEAD, NOW, "shop").conversion_id != first.conversion_id
    )


def test_a_refund_names_the_conversion_of_the_source_it_says() -> None:
    said: dict[str, Any] = {"external_id": "o-1", "refund_id": "r-1", "amount_minor": 1, "currency": "EUR"}
    assert refund_fact(RefundInput(**said), NOW).conversion_id == conversion_id_of("api", "o-1")
    assert refund_fact(RefundInput(**said, source="shop"), NOW).conversion_id == conversion_id_of("shop", "o-1")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://www.Google.com/search?q=1", "www.google.com"),
        ("http://user:pw@b.test:8080/x", "b.test"),
        ("//c.test?x", "c.test"),
        ("https://[2001:db8::1]:443/", "2001:db8::1"),
        ("android-app://com.google.android.gm/", "com.google.android.gm"),
        ("c.test/x", None),
        ("https://", None),
    ],
)
def test_the_host_of_a_referrer(address: str, host: str | None) -> None:
    assert host_of(address) == host


def test_an_odd_query_tells_what_it_can() -> None:
    odd = visit_at("https://a.test/?utm_source=a&utm_source=b&my_gclid=1&gclid=&=&&utm_medium=c%00d+e")
    assert odd == Visit("https://a.test/", "a", "cd e")
    assert visit_at("https://a.test/x?q=1") == Visit("https://a.test/x")
    assert visit_at("/x?utm_source=" + "y" * 1_000) == Visit("/x", "y" * 255)


def test_a_link_is_news_unless_the_same_was_told_within_the_minute_before() -> None:
    links, browser, ann, ben = ToldLinks(), LeadId("b"), LeadId("ann"), LeadId("ben")
    assert links.is_news(browser, ann, NOW)
    links.was_told(browser, ann, NOW)
    assert not links.is_news(browser, ann, NOW + timedelta(seconds=59))
    assert links.is_news(browser, ann, NOW + timedelta(seconds=60))
    assert links.is_news(browser, ann, NOW - timedelta(seconds=1))
    links.was_told(browser, ben, NOW + timedelta(seconds=10))
    links.was_told(browser, ann, NOW + timedelta(seconds=5))
    assert links.is_news(browser, ann, NOW + timedelta(seconds=20))
