"""What a report of credits can be asked: two dimensions, another period, other currencies, returns on costs."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from services.attribution.reports import attribution as attribution_report
from services.attribution.reports.attribution import AttributionReport
from services.attribution.reports.comparison import ComparisonReport
from services.attribution.reports.returns import ReturnsReport
from shared.events import Event
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import NOW, Teller
from throughline.services import service_code

TODAY = NOW.date()


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


@pytest.fixture
def teller() -> Teller:
    return Teller()


async def report(service: Harness, name: str = "attribution", **query: Any) -> Any:
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(service: Harness, name: str = "attribution", **query: Any) -> tuple[int, str, list[dict[str, Any]]]:
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    body = answer.json()
    return answer.status_code, body["type"].rpartition(":")[2], body["errors"]


def days_before(day: date) -> float:
    """How many days before now noon of that day was."""
    return (TODAY - day).days


async def put_rates(service: Harness, *rates: tuple[date, str, str, str]) -> None:
    body = [{"date": str(day), "base": base, "quote": quote, "rate": rate} for day, base, quote, rate in rates]
    assert (await service.client.put("/v1/rates", json={"rates": body})).status_code == 200


async def test_two_dimensions_have_a_key_each_and_their_own_costs(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email", campaign="autumn"),
        teller.touch("nora", 4, channel="Email", campaign="winter"),
        teller.conversion("nora", 1, 1_000),
        teller.cost(TODAY, "Email", 100, campaign="winter"),
        teller.captured("nora", 6, country="DE"),
    )
    found = await report(attribution, dimension="channel,campaign")
    assert [(row["key"], row["keys"], row["value_minor"], row["cost_minor"]) for row in found["rows"]] == [
        ("Email / autumn", ["Email", "autumn"], 500, None),
        ("Email / winter", ["Email", "winter"], 500, 100),
    ]
    mixed = await report(attribution, dimension="country,campaign")
    assert [row["keys"] for row in mixed["rows"]] == [["DE", "autumn"], ["DE", "winter"]]
    assert (mixed["source"], mixed["rows"][0]["cost_minor"]) == ("credits", None)
    sheet = await attribution.client.get(
        "/v1/reports/attribution", params={"dimension": "channel,campaign", "interval": "month", "format": "csv"}
    )
    assert sheet.text.splitlines()[0] == (
        "period,key,channel,campaign,conversions,value_minor,cost_minor,roi,currency,drill_url"
    )


async def test_a_period_is_set_against_the_one_before(attribution: Harness, teller: Teller) -> None:
    for day, channel, minor in (
        (date(2026, 9, 7), "Email", 200),
        (date(2026, 9, 9), "Direct", 90),
        (date(2026, 10, 8), "Email", 500),
        (date(2026, 10, 30), "Display", 70),
    ):
        who = f"{channel}{day}"
        await attribution.deliver(
            teller.touch(who, days_before(day) + 0.1, channel=channel),
            teller.conversion(who, days_before(day), minor),
            teller.cost(day, channel, 10),
        )
    october = {"from": "2026-10-01", "to": "2026-11-01"}
    found = await report(attribution, compare_to="previous_period", **october)
    assert found["previous"] == {"from": "2026-09-01", "to": "2026-10-01"}
    assert [
        (
            row["key"],
            row["value_minor"],
            row["previous"]["value_minor"],
            row["change"]["value_minor"],
            row["change"]["value_ratio"],
        )
        for row in found["rows"]
    ] == [("Email", 500, 200, 300, 1.5), ("Display", 70, 0, 70, None), ("Direct", 0, 90, -90, -1.0)]
    assert found["rows"][2]["previous"]["cost_minor"] == 10
    by_week = await report(attribution, compare_to="previous_period", interval="week", **october)
    assert [
        (row["period"], row["key"], row["value_minor"], row["previous"]["value_minor"]) for row in by_week["rows"]
    ] == [
        ("2026-10-05", "Email", 500, 200),
        ("2026-10-05", "Direct", 0, 90),
        ("2026-10-26", "Display", 70, 0),
    ]
    a_year_ago = await report(attribution, compare_to="previous_year", **october)
    assert [row["previous"]["value_minor"] for row in a_year_ago["rows"]] == [0, 0]
    assert await refused(attribution, compare_to="previous_year", to="2026-11-01") == (
        422,
        "validation-failed",
        [{"pointer": "query:from", "detail": "is needed to know what comes before"}],
    )
    sheet = await attribution.client.get(
        "/v1/reports/attribution", params={"compare_to": "previous_period", "format": "csv", **october}
    )
    assert "previous_value_minor" in sheet.text.splitlines()[0]


async def test_amounts_are_converted_by_the_rate_of_their_day_and_rounded_once(
    attribution: Harness, teller: Teller
) -> None:
    first, second = TODAY - timedelta(days=20), TODAY - timedelta(days=10)
    await attribution.deliver(
        teller.touch("nora", 25, channel="Email"),
        teller.conversion("nora", 20, 101, currency="USD"),
        teller.conversion("nora", 10, 101, currency="USD"),
        teller.conversion("nora", 10, 1_000, currency="JPY"),
        teller.touch("otto", 25, channel="Direct"),
        teller.conversion("otto", 10, 1, currency="USD"),
        teller.cost(second, "Email", 300, currency="JPY"),
    )
    status, kind, errors = await refused(attribution, convert_to="EUR")
    assert (status, kind) == (422, "missing-rates")
    assert [error["detail"].split(" to EUR")[0] for error in errors] == [
        "there is no rate from JPY",
        "there is no rate from USD",
    ]
    await put_rates(
        attribution, (first, "USD", "EUR", "0.5"), (second, "USD", "EUR", "0.5"), (second, "JPY", "USD", "0.01")
    )
    found = await report(attribution, convert_to="EUR")
    # Email: 50.5 + 50.5 + 1,000 x 0.01 x 0.5 x 100 cents; Direct: half a cent, to the even 0; the total by itself
    assert [(row["key"], row["value_minor"], row["cost_minor"]) for row in found["rows"]] == [
        ("Email", 601, 150),
        ("Direct", 0, None),
    ]
    assert (found["currency"], found["total"]["value_minor"]) == ("EUR", 602)
    assert found["crossed"] == {"JPY": ["USD"]}
    by_touch = await report(attribution, convert_to="EUR", date_basis="touch", **{"from": "2026-10-20"})
    assert [(row["value_minor"], by_touch["source"]) for row in by_touch["rows"]] == [(601, "credits"), (0, "credits")]
    await put_rates(attribution, (second, "JPY", "CHF", "0.005"), (second, "CHF", "EUR", "1"))
    assert (await refused(attribution, convert_to="EUR"))[1] == "several-crossings"
    through = await report(attribution, convert_to="EUR", convert_through="CHF")
    assert through["crossed"] == {"JPY": ["CHF"]}
    behind = await attribution.client.get(through["rows"][0]["drill_url"].removeprefix("/attribution"))
    # 50.5 of two conversions each, rounded to the even 50 for itself
    parts = sorted((item["credited_minor"], item["converted_minor"]) for item in behind.json()["items"])
    assert parts == [(101, 50), (101, 50), (1_000, 500)]
    for unasked in ("format=csv", "interval=day"):
        refusal = await attribution.client.get(f"/v1/reports/attribution/conversions?{unasked}")
        assert (refusal.status_code, refusal.json()["errors"][0]["pointer"]) == (422, f"query:{unasked.split('=')[0]}")
    assert (await refused(attribution, convert_to="EUR", currency="USD"))[2][0]["pointer"] == "query:currency"
    compared = await report(
        attribution, "compare", models="first_touch,last_touch", convert_to="EUR", convert_through="USD"
    )
    assert compared["totals"]["last_touch"]["value_minor"] == 602


async def test_returns_on_what_was_spent(attribution: Harness, teller: Teller) -> None:
    day = date(2026, 10, 5)
    facts: list[Event] = [
        teller.cost(day, "Display", 1_000),
        teller.cost(day + timedelta(days=4), "Display", 500),
        teller.cost(day, "Video", 300),
        teller.cost(day, "Email", 0),
    ]
    for days, minor in ((2, 900), (3, 50), (6, 550)):
        facts += [
            teller.touch(f"d{days}", days_before(day) - days + 0.1, channel="Display"),
            teller.conversion(f"d{days}", days_before(day) - days, minor),
        ]
    facts += [
        teller.touch("e", days_before(day) + 0.1, channel="Email"),
        teller.conversion("e", days_before(day), 200),
    ]
    await attribution.deliver(*facts)
    found = await report(attribution, "roi", margin="1")
    rows = {row["key"]: row for row in found["rows"]}
    display = rows["Display"]
    assert {name: value for name, value in display.items() if name != "drill_url"} == {
        "key": "Display",
        "cost_minor": 1_500,
        "value_minor": 1_500,
        "conversions": 3,
        "roas": 1.0,
        "roi": 0.0,
        "cpa_minor": 500,
        "break_even_roas": 1.0,
        "break_even_cpa_minor": 500,
        "break_even_on": "2026-10-11",
        "days_to_break_even": 6,
    }
    assert [rows["Video"][name] for name in ("roas", "roi", "cpa_minor", "break_even_on")] == [0.0, -1.0, None, None]
    assert [rows["Email"][name] for name in ("cost_minor", "roas", "roi", "cpa_minor")] == [0, None, None, None]
    assert (found["total"]["cost_minor"], found["total"]["value_minor"]) == (1_800, 1_700)
    half = {row["key"]: row for row in (await report(attribution, "roi", margin="0.5"))["rows"]}["Display"]
    assert (half["break_even_roas"], half["break_even_cpa_minor"], half["break_even_on"]) == (2.0, 250, None)
    weeks = await report(attribution, "roi", interval="week", filter="channel == 'Display'")
    assert [(row["period"], row["break_even_on"]) for row in weeks["rows"]] == [("2026-10-05", "2026-10-11")]
    for query, pointer in (
        ({"dimension": "country"}, "query:dimension"),
        ({"filter": "rep == 'rosa'"}, "query:filter"),
        ({"margin": "0"}, "query:margin"),
        ({"margin": "1.5"}, "query:margin"),
    ):
        status, _, errors = await refused(attribution, "roi", **query)
        assert (status, errors[0]["pointer"]) == (422, pointer)
    sheet = await attribution.client.get("/v1/reports/roi", params={"format": "csv"})
    assert sheet.text.splitlines()[0].startswith("key,cost_minor,value_minor,conversions,roas,roi,cpa_minor")


async def test_a_comparison_leads_to_the_conversions_of_each_model(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email"),
        teller.touch("nora", 4, channel="Direct"),
        teller.conversion("nora", 1, 1_001),
    )
    found = await report(attribution, "compare", models="linear,last_touch", filter="value_minor > 1000")
    row = {row["key"]: row for row in found["rows"]}["Email"]
    for model, expected in (("linear", [(1_001, 0.5, 501)]), ("last_touch", [])):
        page = await attribution.client.get(row[model]["drill_url"].removeprefix("/attribution"))
        assert [(i["value_minor"], i["share"], i["credited_minor"]) for i in page.json()["items"]] == expected
    answer = await attribution.client.put("/v1/models/keys", json={"base": "linear"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "path:model_id")
    bare = await attribution.client.get("/v1/reports/attribution/conversions")
    assert [(item["share"], item["credited_minor"]) for item in bare.json()["items"]] == [(1.0, 1_001)]


async def test_a_bad_filter_is_shown_where_it_is_bad(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(teller.touch("nora", 5), teller.conversion("nora", 1, 1_000))
    assert await refused(attribution, filter="channel == 'a' && colour == 'red'") == (
        422,
        "invalid-filter",
        [
            {
                "pointer": "query:filter",
                "detail": "there is no colour; there are account, campaign, channel, content, conversion_type, "
                "country, currency, landing_page, medium, rep, source, touch_type, value_minor",
                "column": 19,
            }
        ],
    )
    for query, pointer in (
        ({"dimension": "channel,source,medium"}, "query:dimension"),
        ({"dimension": ","}, "query:dimension"),
        ({"interval": "year"}, "query:interval"),
        ({"date_basis": "cost"}, "query:date_basis"),
        ({"conversion_type": ","}, "query:conversion_type"),
        ({"conversion_type": "a\x00"}, "query:conversion_type"),
        ({"compare_to": "last_year"}, "query:compare_to"),
        ({"convert_to": "EURO"}, "query:convert_to"),
        ({"filter": ""}, "query:filter"),
        ({"filter": "channel.matches('(((a{99}){99}){99}){99}')"}, "query:filter"),
        ({"model": "a\x00"}, "query:model"),
    ):
        status, _, errors = await refused(attribution, **query)
        assert (status, errors[0]["pointer"]) == (422, pointer), query


@pytest.mark.parametrize(
    ("name", "query"),
    [("attribution", {}), ("roi", {}), ("compare", {"models": "linear,last_touch"}), ("cohorts", {})],
)
async def test_what_is_behind_a_cell_is_in_the_currency_that_the_report_chose_by_itself(
    attribution: Harness, teller: Teller, name: str, query: dict[str, str]
) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email"), teller.conversion("nora", 1, 400), teller.cost(TODAY, "Email", 100)
    )
    await attribution.run_timers()
    found = await report(attribution, name, **query)
    assert found["currency"] == "EUR"
    cells = [row.get("linear", row) for row in found["rows"]]
    links = [cell["drill_url"].removeprefix("/attribution") for cell in cells]
    await attribution.deliver(teller.conversion("nora", 0.5, 900, currency="USD"))
    await attribution.run_timers()
    for link in links:
        assert "&currency=EUR" in link
        behind = (await attribution.client.get(link)).json()["items"]
        assert [one["value_minor"] for one in behind] == [400]


async def test_more_rows_than_are_told_say_so(
    attribution: Harness, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await attribution.deliver(
        *(teller.touch("nora", 5 + number, channel=f"c{number}") for number in range(4)),
        teller.conversion("nora", 1, 400),
    )
    monkeypatch.setattr(attribution_report, "MOST_ROWS", 3)
    found = await report(attribution)
    assert (len(found["rows"]), found["truncated"], found["total"]["value_minor"]) == (3, True, 400)


async def test_a_model_that_gives_the_whole_has_no_total_by_touches(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email"),
        teller.touch("nora", 4, channel="Direct"),
        teller.captured("nora", 6, country="DE"),
        teller.conversion("nora", 1, 1_000),
    )
    by_channel = await report(attribution, model="participation")
    assert [(row["key"], row["value_minor"]) for row in by_channel["rows"]] == [("Direct", 1_000), ("Email", 1_000)]
    assert by_channel["total"] is None
    by_country = await report(attribution, model="participation", dimension="country")
    assert [(row["key"], row["value_minor"]) for row in by_country["rows"]] == [("DE", 1_000)]
    assert by_country["total"]["value_minor"] == 1_000


@pytest.mark.parametrize(
    ("name", "query", "declared"),
    [
        ("attribution", {"dimension": "channel,campaign", "interval": "week"}, AttributionReport),
        ("attribution", {"model": "markov"}, AttributionReport),
        ("attribution", {"compare_to": "previous_period", "from": "2026-01-01", "to": "2027-01-01"}, AttributionReport),
        ("compare", {"models": "linear,markov"}, ComparisonReport),
        ("roi", {"dimension": "campaign,channel", "interval": "day", "margin": "0.3"}, ReturnsReport),
    ],
)
async def test_what_is_told_is_what_is_declared(
    attribution: Harness, teller: Teller, name: str, query: dict[str, str], declared: type[BaseModel]
) -> None:
    """Large answers are written without a model for each row."""
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email", campaign="autumn"),
        teller.touch("nora", 4, channel="Direct"),
        teller.conversion("nora", 1, 1_001),
        teller.cost(TODAY - timedelta(days=1), "Email", 100, campaign="autumn"),
    )
    answer = await attribution.client.get(f"/v1/reports/{name}", params=query)
    text = answer.text.replace('"previous":{"from":', '"previous":{"first":').replace('"to":', '"end":')
    told = declared.model_validate_json(text).model_dump_json(exclude_unset=True, by_alias=True)
    assert told == answer.text
    assert answer.json()["rows"]
