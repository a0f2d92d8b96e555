"""Funnel, pipeline and speed to lead over HTTP: from the sums what the marks come to, in every zone and interval."""

import csv
from collections.abc import AsyncIterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import pytest_asyncio

from shared.ids import RepId
from shared.settings import Settings
from shared.testing import FrozenClock, Harness, harness
from tests.service.attribution_facts import NOW
from tests.service.pipeline_facts import PipelineTeller
from throughline.services import service_code

DAY_S = 86_400
FROM, TO = "2026-10-01", "2026-12-01"


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings, clock=FrozenClock(NOW)) as service:
        yield service


@pytest.fixture
def teller() -> PipelineTeller:
    return PipelineTeller()


async def report(service: Harness, name: str, **query: Any) -> Any:
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def problem(service: Harness, name: str, **query: Any) -> tuple[int, list[str]]:
    """Status and the pointers of a refusal."""
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, [error["pointer"] for error in answer.json().get("errors", [])]


async def test_funnel_tells_who_entered_went_on_and_left(attribution: Harness, teller: PipelineTeller) -> None:
    await attribution.deliver(
        teller.stage("nora", 30, "subscriber"),
        teller.stage("nora", 28, "lead"),
        teller.stage("nora", 20, "sal"),
        teller.stage("otto", 25, "subscriber"),
        teller.stage("otto", 21, "lead"),
        teller.stage("otto", 5, "disqualified"),
        teller.stage("paul", 200, "subscriber"),
        teller.stage("paul", 3, "lead"),
    )
    found = await report(attribution, "funnel", **{"from": FROM, "to": TO})
    assert found["stages"] == ["subscriber", "lead", "mql", "sal", "sql", "opportunity", "customer"]
    told = {row["stage"]: (row["entered"], row["skipped"], row["left"]) for row in found["rows"]}
    assert [told[stage] for stage in ("subscriber", "lead", "mql", "sal", "sql")] == [
        (2, 0, 0),
        (3, 0, 1),
        (1, 1, 0),
        (1, 0, 0),
        (0, 0, 0),
    ]
    subscriber, lead, mql, *_, customer = found["rows"]
    assert (subscriber["next"]["number"], subscriber["next"]["rate"]) == (2, 1.0)
    assert subscriber["next"]["mean_seconds"] == 3 * DAY_S
    assert 0.7 * 2 * DAY_S <= subscriber["next"]["median_seconds"] <= 2 * DAY_S
    assert (lead["next"]["number"], lead["next"]["rate"]) == (1, 0.333333)
    assert (mql["next"]["number"], mql["next"]["median_seconds"]) == (1, None)
    assert (customer["next"], customer["last"]) == (None, None)
    soon = await report(attribution, "funnel", within_days=3, **{"from": FROM, "to": TO})
    assert soon["rows"][0]["next"]["number"] == 1


async def test_funnel_counts_a_merged_person_once(attribution: Harness, teller: PipelineTeller) -> None:
    await attribution.deliver(teller.stage("nora", 9, "lead"), teller.stage("otto", 8, "lead"))
    assert (await report(attribution, "funnel"))["rows"][1]["entered"] == 2
    await attribution.deliver(teller.merged("otto", "nora", 1))
    assert (await report(attribution, "funnel"))["rows"][1]["entered"] == 1
    await attribution.deliver(teller.unmerged("otto", "nora", 0))
    assert (await report(attribution, "funnel"))["rows"][1]["entered"] == 2


@pytest.mark.parametrize(
    ("dimension", "keys"),
    [
        ("rep", {"rolf": 1, "(not set)": 1}),
        ("team", {"emea": 1, "south": 1, "(not set)": 1}),
        ("channel", {"Paid Search": 1, "Email": 1}),
        ("source", {"google": 1, "(not set)": 1}),
        ("campaign", {"autumn": 1, "(not set)": 1}),
        ("country", {"DE": 1, "(not set)": 1}),
        ("account", {"acme": 1, "(not set)": 1}),
    ],
)
async def test_people_count_under_their_rep_their_first_touch_their_country_and_their_account(
    attribution: Harness, teller: PipelineTeller, dimension: str, keys: dict[str, int]
) -> None:
    await attribution.deliver(
        teller.stage("nora", 9, "lead"),
        teller.stage("otto", 9, "lead"),
        teller.touch("otto", 9),
        teller.touch("nora", 10, channel="Email"),
        teller.touch("nora", 20, channel="Display", automated=True),
        teller.offered("nora", 8, "a1", "rosa"),
        teller.offered("nora", 7, "a2", "rolf", teams=("emea", "south")),
        teller.captured("nora", 9, country="DE", account="acme"),
    )
    await attribution.deliver(teller.touch("nora", 11, channel="Paid Search", source="google", campaign="autumn"))
    found = await report(attribution, "funnel", dimension=dimension)
    assert {row["key"]: row["entered"] for row in found["rows"] if row["stage"] == "lead"} == keys
    for key, entered in keys.items():
        only = await report(attribution, "funnel", **{dimension: key})
        assert [row["entered"] for row in only["rows"] if row["stage"] == "lead"] == [entered]


async def test_a_corrected_first_touch_counts_elsewhere(attribution: Harness, teller: PipelineTeller) -> None:
    async def channels() -> dict[str, int]:
        found = await report(attribution, "funnel", dimension="channel")
        return {row["key"]: row["entered"] for row in found["rows"] if row["stage"] == "subscriber"}

    await attribution.deliver(
        teller.stage("nora", 9, "subscriber"),
        teller.touch("nora", 20, touch_id="t", channel="Display"),
        teller.touch("nora", 10, channel="Email"),
    )
    assert await channels() == {"Display": 1}
    await attribution.deliver(teller.touch("nora", 5, touch_id="t", channel="Display"))
    assert await channels() == {"Email": 1}


async def test_deals_have_a_funnel_of_their_own(attribution: Harness, teller: PipelineTeller) -> None:
    await attribution.deliver(
        teller.deal_step("nora", 20, "d1", "first", 1),
        teller.deal_step("nora", 16, "d1", "late", 2, opened=20),
        teller.deal_step("nora", 10, "d1", "won", 3, opened=20),
        teller.deal_step("otto", 12, "d2", "first", 1),
        teller.deal_step("otto", 8, "d2", "lost", 2, opened=12),
    )
    found = await report(attribution, "funnel", of="deals")
    assert found["stages"] == ["first", "middle", "late", "won"]
    assert [(row["entered"], row["skipped"], row["left"]) for row in found["rows"]] == [
        (2, 0, 1),
        (1, 1, 0),
        (1, 0, 0),
        (1, 0, 0),
    ]
    assert (last := found["rows"][0]["last"])["number"] == 1
    assert (last["rate"], last["mean_seconds"]) == (0.5, 10 * DAY_S)
    assert 10 * DAY_S <= last["median_seconds"] == last["p90_seconds"] <= 10 * DAY_S / 0.7


async def a_quarter(attribution: Harness, teller: PipelineTeller) -> None:
    """Deals of November (NOW is the 20th) and before."""
    rosa = {"rep_id": RepId("rosa"), "teams": ("emea",)}
    await attribution.deliver(
        teller.deal_step("nora", 60, "old", "first", 1, value_minor=5_000, **rosa),
        teller.deal_step("nora", 40, "old", "middle", 2, value_minor=6_000, opened=60, **rosa),
        teller.deal_step("otto", 15, "new", "late", 1, value_minor=8_000),
        teller.deal_step("paul", 18, "won", "first", 1, value_minor=10_000, recurring_minor=100, **rosa),
        teller.deal_step("paul", 8, "won", "won", 2, value_minor=12_000, recurring_minor=200, opened=18, **rosa),
        teller.deal_step(
            "paul", 2, "won", "won", 3, value_minor=12_000, recurring_minor=150, opened=18,
            closed_at=NOW - timedelta(days=8), **rosa,
        ),
        teller.deal_step("rita", 12, "lost", "first", 1, value_minor=4_000),
        teller.deal_step("rita", 4, "lost", "lost", 2, value_minor=4_000, opened=12),
        teller.conversion("paul", 8, 12_000, external_id="c1", deal_id="won"),
        teller.conversion("paul", 3, 500, external_id="c2"),
        teller.refund("c2", 100),
    )  # fmt: skip


async def test_pipeline_tells_what_is_open_and_what_happened(attribution: Harness, teller: PipelineTeller) -> None:
    await a_quarter(attribution, teller)
    found = await report(attribution, "pipeline", **{"from": "2026-11-01", "to": "2026-12-01"})
    (row,) = found["rows"]
    assert found["currency"] == "EUR"
    assert row["open"] == {"number": 2, "value_minor": 14_000, "weighted_minor": 3_000 + 7_200}
    assert row["open_by_stage"] == [
        {"stage": "first", "number": 0, "value_minor": 0, "weighted_minor": 0},
        {"stage": "middle", "number": 1, "value_minor": 6_000, "weighted_minor": 3_000},
        {"stage": "late", "number": 1, "value_minor": 8_000, "weighted_minor": 7_200},
    ]
    assert row["created"] == {"number": 3, "value_minor": 24_000}
    assert (row["won"], row["lost"]) == ({"number": 1, "value_minor": 12_000}, {"number": 1, "value_minor": 4_000})
    assert (row["win_rate"], row["win_rate_by_value"], row["mean_deal_minor"]) == (0.5, 0.75, 12_000)
    assert row["cycle"]["mean_days"] == 10
    assert 10 <= row["cycle"]["median_days"] == row["cycle"]["p90_days"] <= 10 / 0.7
    # 4 deals (one was open before, three came) x 12 000 x 0.5 / 10 days
    assert row["velocity_minor_per_day"] == 2_400
    assert row["recurring"] == {
        "arr_before_minor": 0,
        "new_minor": 2_400,
        "expansion_minor": 0,
        "contraction_minor": -600,
        "churn_minor": 0,
        "arr_minor": 1_800,
        "growth": None,
    }
    assert row["revenue"] == {
        "new": {"number": 1, "value_minor": 12_000},
        "recurring": {"number": 1, "value_minor": 400},
    }


async def test_pipeline_stands_as_it_stood_at_the_end_of_each_period(
    attribution: Harness, teller: PipelineTeller
) -> None:
    await a_quarter(attribution, teller)
    asked = {"from": "2026-09-01", "to": "2026-12-01"}
    rows = (await report(attribution, "pipeline", interval="month", **asked))["rows"]
    assert [(row["period"], row["open"]["value_minor"], row["won"]["number"]) for row in rows] == [
        ("2026-09-01", 5_000, 0),
        ("2026-10-01", 6_000, 0),
        ("2026-11-01", 14_000, 1),
    ]
    weeks = (await report(attribution, "pipeline", interval="week", tz="Asia/Kathmandu", **asked))["rows"]
    assert weeks[-1]["open"] == rows[-1]["open"]
    assert sum(week["created"]["number"] for week in weeks) == 4
    assert weeks[-1]["recurring"]["arr_minor"] == 1_800


async def test_pipeline_beside_the_period_before(attribution: Harness, teller: PipelineTeller) -> None:
    await a_quarter(attribution, teller)
    found = await report(
        attribution, "pipeline", compare_to="previous_period", **{"from": "2026-11-01", "to": "2026-12-01"}
    )
    assert found["previous"] == {"from": "2026-10-01", "to": "2026-11-01"}
    (row,) = found["rows"]
    assert row["previous"]["open"] == {"number": 1, "value_minor": 6_000, "weighted_minor": 3_000}
    assert row["change"]["open"]["value_minor"] == 1.333333
    assert row["change"]["won"]["number"] is None
    by_rep = await report(attribution, "pipeline", dimension="rep", **{"from": "2026-11-01", "to": "2026-12-01"})
    assert {each["key"]: each["open"]["value_minor"] for each in by_rep["rows"]} == {"(not set)": 8_000, "rosa": 6_000}


async def test_pipeline_never_mixes_currencies(attribution: Harness, teller: PipelineTeller) -> None:
    await attribution.deliver(
        teller.deal_step("nora", 6, "d1", "first", 1), teller.deal_step("otto", 5, "d2", "first", 1, currency="USD")
    )
    answer = await attribution.client.get("/v1/reports/pipeline")
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]) == (422, "several-currencies")
    assert (await report(attribution, "pipeline", currency="USD"))["rows"][0]["open"]["number"] == 1
    await attribution.deliver(
        teller.deal_step("otto", 3, "d2", "won", 2, currency="USD", opened=5, recurring_minor=500)
    )
    days = [NOW.date() - timedelta(days=back) for back in (6, 5, 4, 3, 2)]
    asked = {"convert_to": "EUR", "interval": "day", "from": str(days[0]), "to": str(days[-1])}
    answer = await attribution.client.get("/v1/reports/pipeline", params=asked)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query:convert_to")
    rates = [
        {"date": str(day), "base": "USD", "quote": "EUR", "rate": rate}
        for day, rate in zip(days[1:], ("0.5", "0.8", "0.6"), strict=False)
    ]
    assert (await attribution.client.put("/v1/rates", json={"rates": rates})).status_code == 200
    found = await report(attribution, "pipeline", **asked)
    assert (found["currency"], found["crossed"]) == ("EUR", {})
    rows = [(row["open"]["value_minor"], row["won"]["value_minor"]) for row in found["rows"]]
    assert rows == [(10_000, 0), (15_000, 0), (18_000, 0), (10_000, 6_000)]
    assert [row["recurring"]["arr_minor"] for row in found["rows"]] == [0, 0, 0, 12 * 300]
    both = await attribution.client.get("/v1/reports/pipeline", params={"convert_to": "EUR", "currency": "USD"})
    assert both.json()["errors"][0]["pointer"] == "query:currency"


async def test_speed_to_lead_and_kept_times(attribution: Harness, teller: PipelineTeller) -> None:
    minute, hour = 1 / 1_440, 1 / 24
    await attribution.deliver(
        teller.captured("nora", 9),
        teller.offered("nora", 9 - minute, "a1", "rosa", teams=("emea",), due_after=hour),
        teller.accepted("nora", 9 - 3 * minute, "a1"),
        teller.touch("nora", 9 - 50 * minute, kind="call_connected"),
        teller.captured("otto", 8),
        teller.offered("otto", 8 - hour, "a2", "rosa", due_after=hour),
        teller.expired("otto", 8 - 3 * hour, "a2"),
        teller.offered("otto", 8 - 3 * hour, "a3", "rolf", due_after=hour),
        teller.rejected("otto", 8 - 3.5 * hour, "a3"),
        teller.captured("paul", 2),
        teller.offered("paul", hour / 2, "a4", "rolf", due_after=hour),
        teller.captured("rita", 1),
        teller.offered("rita", 1 - hour, "a5", "rolf", due_after=hour),
    )
    (row,) = (await report(attribution, "speed-to-lead"))["rows"]
    assert row["started"] == 4
    assigned = row["assigned"]
    assert (assigned["number"], assigned["waiting"], assigned["rate"]) == (4, 0, 1)
    assert (assigned["within_5_minutes"], assigned["within_1_hour"]) == (0.25, 0.75)
    assert (row["accepted"]["number"], row["accepted"]["within_5_minutes"], row["accepted"]["waiting"]) == (1, 0.25, 3)
    assert (row["contacted"]["within_1_hour"], row["contacted"]["mean_seconds"]) == (0.25, 3_000)
    assert row["sla"] == {
        "offers": 5,
        "kept": 1,
        "breached": 1,
        "rejected": 1,
        "replaced": 0,
        "withdrawn": 0,
        "pending": 2,
        "overdue": 1,
        "kept_rate": 0.333333,
    }
    by_rep = (await report(attribution, "speed-to-lead", since="offered", dimension="rep"))["rows"]
    assert {each["key"]: (each["started"], each["accepted"]["number"]) for each in by_rep} == {
        "rolf": (3, 0),
        "rosa": (2, 1),
    }
    assert {each["key"]: each["sla"]["overdue"] for each in by_rep} == {"rolf": 1, "rosa": 0}
    assert all(each["assigned"] is None for each in by_rep)
    of_team = (await report(attribution, "speed-to-lead", since="offered", team="emea"))["rows"]
    assert [each["started"] for each in of_team] == [1]
    await attribution.deliver(teller.erased("rita"))
    (row,) = (await report(attribution, "speed-to-lead"))["rows"]
    assert (row["sla"]["withdrawn"], row["sla"]["overdue"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "query", "pointer"),
    [
        ("funnel", {"dimension": "stage"}, "query:dimension"),
        ("funnel", {"of": "dogs"}, "query:of"),
        ("funnel", {"within_days": "32"}, "query:within_days"),
        ("funnel", {"within_days": "x"}, "query:within_days"),
        ("funnel", {"interval": "day"}, "query:from"),
        ("funnel", {"interval": "hour", "from": FROM, "to": TO}, "query:interval"),
        ("funnel", {"interval": "day", "from": "2020-01-01", "to": TO}, "query:interval"),
        ("pipeline", {"compare_to": "previous_year", "from": FROM}, "query:to"),
        ("pipeline", {"compare_to": "yesterday", "from": FROM, "to": TO}, "query:compare_to"),
        ("pipeline", {"from": TO, "to": FROM}, "query:to"),
        ("pipeline", {"tz": "Mars/Olympus"}, "query:tz"),
        ("pipeline", {"currency": "XXX"}, "query:currency"),
        ("pipeline", {"rep": "a\x00b"}, "query:rep"),
        ("pipeline", {"rep": "a" * 501}, "query:rep"),
        ("speed-to-lead", {"since": "birth"}, "query:since"),
        ("speed-to-lead", {"format": "xml"}, "query:format"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    attribution: Harness, name: str, query: dict[str, str], pointer: str
) -> None:
    assert await problem(attribution, name, **query) == (422, [pointer])


@pytest.mark.parametrize("name", ["funnel", "pipeline", "speed-to-lead"])
async def test_reports_are_sheets_too(attribution: Harness, teller: PipelineTeller, name: str) -> None:
    await a_quarter(attribution, teller)
    await attribution.deliver(
        teller.stage("nora", 6, "lead"),
        teller.captured("nora", 6),
        teller.touch("nora", 7, campaign="=1+1"),
    )
    query = {"dimension": "campaign", "interval": "month", "from": FROM, "to": TO, "compare_to": "previous_period"}
    rows = (await report(attribution, name, **query))["rows"]
    by_header = await attribution.client.get(f"/v1/reports/{name}", params=query, headers={"accept": "text/csv"})
    asked = await attribution.client.get(f"/v1/reports/{name}", params={**query, "format": "csv"})
    assert asked.text == by_header.text
    assert asked.headers["content-type"].startswith("text/csv")
    named = ["period", "key", "stage"] if name == "funnel" else ["period", "key"]
    assert asked.text.splitlines()[0].split(",")[: len(named)] == named
    lines = list(csv.DictReader(StringIO(asked.text)))
    assert [(line["key"].lstrip("'"), line["period"]) for line in lines] == [
        (row["key"], row["period"]) for row in rows
    ]
    assert "'=1+1" in {line["key"] for line in lines}
    group, figure = {
        "funnel": ("last", "number"),
        "pipeline": ("open", "value_minor"),
        "speed-to-lead": ("sla", "offers"),
    }[name]
    figures = ["" if row[group] is None else str(row[group][figure]) for row in rows]
    assert [line[f"{group}_{figure}"] for line in lines] == figures


@pytest.mark.parametrize("name", ["funnel", "pipeline", "speed-to-lead"])
async def test_nothing_told_is_a_report_of_nothing(attribution: Harness, name: str) -> None:
    found = await report(attribution, name, compare_to="previous_year", **{"from": FROM, "to": TO})
    assert found["as_of"] is None
    assert {row["key"] for row in found["rows"]} == {""}
    assert (await report(attribution, name, dimension="rep"))["rows"] == []


async def test_means_are_those_of_the_times_themselves(attribution: Harness, teller: PipelineTeller) -> None:
    quarter = 0.25 / 86_400
    await attribution.deliver(
        teller.captured("nora", 9),
        teller.offered("nora", 9 - quarter, "a1", "rosa"),
        teller.captured("otto", 8),
        teller.offered("otto", 8 - 3 * quarter, "a2", "rosa"),
    )
    (row,) = (await report(attribution, "speed-to-lead"))["rows"]
    assert row["assigned"]["mean_seconds"] == 0.5
