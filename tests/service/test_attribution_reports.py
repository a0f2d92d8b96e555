"""Reports: they equal the sums of the credits, and never mix money."""

import csv
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import Harness, harness, token
from tests.service.attribution_facts import NOW, Teller
from tests.service.attribution_random import random_history
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


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without their addresses."""
    return [
        {
            name: {inner: value for inner, value in cell.items() if inner != "drill_url"}
            if isinstance(cell, dict)
            else cell
            for name, cell in row.items()
            if name != "drill_url"
        }
        for row in rows
    ]


async def problem(service: Harness, path: str, **query: Any) -> tuple[int, str, list[str]]:
    """Status, type and the pointers of a refusal."""
    answer = await service.client.get(path, params=query)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    return answer.status_code, body["type"], [error["pointer"] for error in body.get("errors", [])]


async def test_report_tells_what_each_channel_earned_and_cost(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel="Paid Search"),
        teller.touch("nora", 4, channel="Email"),
        teller.conversion("nora", 1, 10_000),
        teller.conversion("otto", 1, 500),
        teller.cost(TODAY - timedelta(days=1), "Paid Search", 1_500),
        teller.cost(TODAY - timedelta(days=2), "Paid Search", 1_000),
        teller.cost(TODAY - timedelta(days=1), "Display", 70),
        teller.cost(TODAY - timedelta(days=1), "Display", 50),
    )
    found = await report(attribution, model="linear", dimension="channel")
    assert found["currency"] == "EUR"
    assert found["total"] == {"conversions": 2, "value_minor": 10_500, "cost_minor": 2_550, "roi": 3.117647}
    assert bare(found["rows"]) == [
        {"key": "Email", "conversions": 0.5, "value_minor": 5_000, "cost_minor": None, "roi": None},
        {"key": "Paid Search", "conversions": 0.5, "value_minor": 5_000, "cost_minor": 2_500, "roi": 1.0},
        {"key": "(unattributed)", "conversions": 1, "value_minor": 500, "cost_minor": None, "roi": None},
        {"key": "Display", "conversions": 0, "value_minor": 0, "cost_minor": 50, "roi": -1.0},
    ]


async def test_dimensions_are_those_of_the_touches(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel=None, source="google", medium="cpc", campaign="autumn"),
        teller.touch("nora", 4, channel=None, source="news", medium="email"),
        teller.conversion("nora", 1, 1_000),
        teller.cost(TODAY, "Paid Search", 100, campaign="autumn"),
        teller.cost(TODAY, "Email", 30),
    )
    keys = {
        dimension: {
            row["key"]: row["cost_minor"]
            for row in (await report(attribution, model="linear", dimension=dimension))["rows"]
        }
        for dimension in ("channel", "source", "medium", "campaign")
    }
    assert keys == {
        "channel": {"Paid Search": 100, "Email": 30},
        "source": {"google": None, "news": None},
        "medium": {"cpc": None, "email": None},
        "campaign": {"autumn": 100, "(not set)": 30},
    }


async def test_period_holds_the_first_day_and_not_the_last(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.conversion("nora", 0, 1),
        teller.conversion("nora", 1, 10),
        teller.conversion("nora", 2, 100),
        teller.cost(TODAY, "(unattributed)", 7),
        teller.cost(TODAY - timedelta(days=2), "(unattributed)", 50),
    )
    query: dict[str, Any] = {"from": TODAY - timedelta(days=2), "to": TODAY}
    (row,) = (await report(attribution, model="linear", **query))["rows"]
    assert (row["value_minor"], row["cost_minor"]) == (110, 50)


async def test_days_of_another_time_zone_are_days_of_utc_and_parts_of_days(
    attribution: Harness, teller: Teller
) -> None:
    await attribution.deliver(
        teller.conversion("nora", 13 / 24, 100),  # 23:00 the day before in UTC, 00:00 in Berlin
        teller.conversion("nora", 14 / 24, 10),  # 22:00 and 23:00
    )
    day: dict[str, Any] = {"from": TODAY, "to": TODAY + timedelta(days=1)}
    assert (await report(attribution, **day))["rows"] == []
    today = await report(attribution, tz="Europe/Berlin", **day)
    assert [(row["value_minor"], row["conversions"]) for row in today["rows"]] == [(100, 1)]
    assert today["source"] == "sums"
    week: dict[str, Any] = {"tz": "Europe/Berlin", "from": TODAY - timedelta(days=7), "to": TODAY}
    for interval in ("day", "week", "month"):
        before = await report(attribution, interval=interval, **week)
        assert [(row["value_minor"], row["conversions"]) for row in before["rows"]] == [(10, 1)]
        assert before["source"] == "sums"
    ever = await report(attribution, interval="day", tz="Europe/Berlin")
    assert {row["period"]: row["value_minor"] for row in ever["rows"]} == {
        str(TODAY): 100,
        str(TODAY - timedelta(days=1)): 10,
    }
    assert ever["source"] == "sums"
    assert (await report(attribution, date_basis="touch", **week))["source"] == "credits"


async def test_sums_equal_the_credits_for_every_model_dimension_and_zone(attribution: Harness) -> None:
    history = [fact for seed in range(300, 304) for fact in random_history(seed)]
    await attribution.deliver(*history)
    window: dict[str, Any] = {"from": TODAY - timedelta(days=30), "to": TODAY - timedelta(days=3)}
    for model in ("first_touch", "time_decay", "w_shaped", "engaged"):
        for currency in ("EUR", "USD"):
            query: dict[str, Any] = {"model": model, "currency": currency, **window}
            by_utc = await report(attribution, dimension="source", **query)
            assert bare(by_utc["rows"]) == bare(
                (await report(attribution, dimension="source", tz="Africa/Abidjan", **query))["rows"]
            )
            async with attribution.runtime.database.reading() as connection:
                rows = await connection.fetch(
                    "SELECT combos.source, part.value_minor FROM model_runs JOIN credits USING (run)"
                    " JOIN paths USING (conversion_id)"
                    " CROSS JOIN unnest(paths.combos, credits.value_minor) AS part (combo_id, value_minor)"
                    " JOIN combos USING (combo_id) WHERE part.value_minor > 0"
                    " AND model = $1 AND currency = $2 AND day >= $3 AND day < $4",
                    model,
                    currency,
                    window["from"],
                    window["to"],
                )
            values: dict[str, int] = defaultdict(int)
            for row in rows:
                values[row["source"]] += row["value_minor"]
            assert {row["key"]: row["value_minor"] for row in by_utc["rows"] if row["value_minor"]} == values
            assert by_utc["rows"] == sorted(by_utc["rows"], key=lambda row: -row["value_minor"])


async def test_comparison_puts_models_side_by_side(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 5, channel="Paid Search"),
        teller.touch("nora", 4, channel="Email"),
        teller.conversion("nora", 1, 1_000),
    )
    found = await report(attribution, "compare", models="first_touch,linear,engaged", dimension="channel")
    assert found["models"] == ["first_touch", "linear", "engaged"]
    half = {"conversions": 0.5, "value_minor": 500}
    less = {"conversions": -0.5, "conversions_ratio": -0.5, "value_minor": -500, "value_ratio": -0.5}
    more = {"conversions": 0.5, "conversions_ratio": None, "value_minor": 500, "value_ratio": None}
    assert bare(found["rows"]) == [
        {
            "key": "Paid Search",
            "first_touch": {"conversions": 1, "value_minor": 1_000},
            "linear": {**half, "difference": less},
            "engaged": {**half, "difference": less},
        },
        {
            "key": "Email",
            "first_touch": {"conversions": 0, "value_minor": 0},
            "linear": {**half, "difference": more},
            "engaged": {**half, "difference": more},
        },
    ]
    assert found["totals"] == {name: {"conversions": 1, "value_minor": 1_000} for name in found["models"]}


async def test_several_currencies_are_listed_and_never_added(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.conversion("nora", 1, 1_000, currency="USD"),
        teller.conversion("nora", 1, 900, currency="EUR"),
        teller.cost(TODAY, "Email", 5, currency="JPY"),
    )
    answer = await attribution.client.get("/v1/reports/attribution", params={"model": "linear"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:throughline:problem:attribution:several-currencies"
    assert answer.json()["errors"] == [{"pointer": "query:currency", "detail": "send one of EUR, JPY, USD"}]
    found = await report(attribution, model="linear", currency="USD")
    assert [(row["key"], row["value_minor"]) for row in found["rows"]] == [("(unattributed)", 1_000)]
    assert (await attribution.client.get("/v1/reports/compare", params={"models": "linear"})).status_code == 422


async def test_report_without_facts_is_empty(attribution: Harness) -> None:
    nothing = {"conversions": 0, "value_minor": 0, "cost_minor": None, "roi": None}
    assert await report(attribution) == {
        "currency": None,
        "as_of": None,
        "model": "linear",
        "model_version": 0,
        "source": "sums",
        "truncated": False,
        "total": nothing,
        "rows": [],
    }


async def test_report_comes_as_csv_with_harmless_names(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(teller.touch("nora", 5, campaign="=HYPERLINK(1)"), teller.conversion("nora", 1, 1_000))
    query = {"model": "linear", "dimension": "campaign"}
    by_parameter = await attribution.client.get("/v1/reports/attribution", params={**query, "format": "csv"})
    by_header = await attribution.client.get("/v1/reports/attribution", params=query, headers={"accept": "text/csv"})
    assert by_parameter.headers["content-type"] == "text/csv; charset=utf-8"
    assert by_parameter.text == by_header.text
    header, line = csv.reader(StringIO(by_parameter.text))
    assert header == ["key", "conversions", "value_minor", "cost_minor", "roi", "currency", "drill_url"]
    assert line[:-1] == ["'=HYPERLINK(1)", "1", "1000", "", "", "EUR"]
    compared = await attribution.client.get(
        "/v1/reports/compare", params={"models": "linear,last_touch", "format": "csv"}
    )
    assert compared.text.splitlines()[0] == (
        "key,linear_conversions,linear_value_minor,last_touch_conversions,last_touch_value_minor,currency"
    )


async def test_sums_leave_no_trace_of_what_was_corrected(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(teller.touch("nora", 5), teller.conversion("nora", 1, 1_000, external_id="order"))
    await attribution.deliver(teller.conversion("nora", 2, 1_000, external_id="order", currency="USD"))
    async with attribution.runtime.database.reading() as connection:
        days = [
            {(row["currency"], row["day"]) for row in await connection.fetch(f"SELECT * FROM {table}")}
            for table in ("credit_sums WHERE basis = 'c' AND level = 'day'", "conversion_sums WHERE level = 'day'")
        ]
    assert days == [{("USD", TODAY - timedelta(days=2))}] * 2


async def test_as_of_is_how_far_every_feed_was_read(attribution: Harness) -> None:
    older, newer = NOW - timedelta(seconds=9), NOW
    async with attribution.runtime.database.transaction() as tx:
        await tx.connection.executemany(
            "INSERT INTO feed_watermarks (topic, partition, source, at) VALUES ($1, $2, 'capture', $3)",
            [("touches", 0, newer), ("conversions", 1, older), ("scores", 0, NOW - timedelta(days=9))],
        )
    assert (await report(attribution))["as_of"] == older.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("model", ["markov", "shapley"])
async def test_models_that_give_totals_split_no_single_conversion(
    attribution: Harness, teller: Teller, model: str
) -> None:
    refusal = (422, "urn:throughline:problem:attribution:model-not-available", ["query:model"])
    await attribution.deliver(teller.conversion("nora", 1, 1_000, external_id="order"))
    assert (await report(attribution, model=model))["total"]["value_minor"] == 1_000
    path = f"/v1/conversions/{teller.conversion_id('order')}/credits"
    assert await problem(attribution, path, model=model) == refusal


@pytest.mark.parametrize(
    ("path", "query", "status", "pointer"),
    [
        ("/v1/reports/attribution", {"model": "best"}, 422, "query:model"),
        ("/v1/reports/attribution", {"dimension": "colour"}, 422, "query:dimension"),
        ("/v1/reports/attribution", {"from": "yesterday"}, 422, "query:from"),
        ("/v1/reports/attribution", {"from": "0001-01-01", "tz": "Asia/Tokyo"}, 422, "query:from"),
        ("/v1/reports/attribution", {"from": "2026-11-02", "to": "2026-11-02"}, 422, "query:to"),
        ("/v1/reports/attribution", {"tz": "../../etc/passwd"}, 422, "query:tz"),
        ("/v1/reports/attribution", {"currency": "EURO"}, 422, "query:currency"),
        ("/v1/reports/attribution", {"format": "xml"}, 422, "query:format"),
        ("/v1/reports/compare", {}, 422, "query:models"),
        ("/v1/reports/compare", {"models": ","}, 422, "query:models"),
        ("/v1/reports/compare", {"models": "linear,best"}, 422, "query:models"),
        ("/v1/journey", {}, 422, "query:email"),
        ("/v1/journey", {"email": "nobody"}, 422, "query:email"),
        ("/v1/journey", {"email": "a@b.example", "lead_id": "x"}, 422, "query:email"),
        ("/v1/leads/x/journey", {"limit": 1_001}, 422, "query:limit"),
        ("/v1/conversions", {"email": "a@b.example", "limit": 201}, 422, "query:limit"),
        ("/v1/journey", {"email": "a@b.example", "cursor": "bogus"}, 400, "query:cursor"),
    ],
)
async def test_bad_input_is_named(
    attribution: Harness, path: str, query: dict[str, Any], status: int, pointer: str
) -> None:
    found, _, pointers = await problem(attribution, path, **query)
    assert (found, pointers) == (status, [pointer])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/leads/00000000-0000-8000-8000-000000000000/journey",
        "/v1/journey?email=nobody@example.com",
        "/v1/conversions/nothing",
        "/v1/conversions/nothing/credits?model=linear",
        "/v1/conversions/nothing/explain",
        "/v1/models/nothing",
    ],
)
async def test_what_is_not_known_is_not_found(attribution: Harness, path: str) -> None:
    answer = await attribution.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_reading_needs_its_scope(attribution: Harness) -> None:
    paths = [
        "/v1/reports/attribution",
        "/v1/reports/compare?models=linear",
        "/v1/journey?email=a@b.example",
        "/v1/leads/x/journey",
        "/v1/conversions?email=a@b.example",
        "/v1/credits?email=a@b.example",
        "/v1/conversions/x",
        "/v1/conversions/x/credits",
        "/v1/conversions/x/explain",
        "/v1/models",
        "/v1/models/engaged",
        "/v1/models/engaged/versions",
    ]
    other = {"authorization": f"Bearer {token(attribution.settings, 'capture:read')}"}
    for path in paths:
        assert (await attribution.client.get(path, headers={"authorization": ""})).status_code == 401
        assert (await attribution.client.get(path, headers=other)).status_code == 403
    reader = {"authorization": f"Bearer {token(attribution.settings, 'attribution:read')}"}
    assert (await attribution.client.get("/v1/models", headers=reader)).status_code == 200
    assert (await attribution.client.put("/v1/models/mine", json={}, headers=reader)).status_code == 403
