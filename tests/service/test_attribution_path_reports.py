"""Reports about sequences of channels equal what the facts come to, for every period, zone, type and currency."""

import csv
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import date, datetime, time, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from services.attribution.domain import Conversion
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import DAY, NOW, Teller
from tests.service.paths_world import PathWorld, without_runs
from tests.service.test_attribution_histories import histories
from throughline.services import service_code

TODAY = NOW.date()
Arrival = tuple[Conversion, tuple[str, ...], int | None]
"""A conversion, the channels before it, and the whole days from the first of these."""

WINDOWS: dict[str, tuple[date | None, date | None, str]] = {
    "all time": (None, None, "UTC"),
    "whole months": (date(2026, 9, 1), date(2026, 11, 1), "UTC"),
    "months and days": (date(2026, 8, 20), TODAY, "UTC"),
    "some days": (TODAY - timedelta(days=12), TODAY - timedelta(days=3), "UTC"),
    "open end": (date(2026, 10, 17), None, "UTC"),
    "open begin": (None, date(2026, 11, 5), "UTC"),
    "half a day behind": (date(2026, 10, 3), date(2026, 11, 14), "Asia/Kolkata"),
    "a day elsewhere": (TODAY - timedelta(days=5), TODAY - timedelta(days=4), "America/New_York"),
    "months elsewhere": (date(2026, 9, 1), date(2026, 11, 1), "America/Los_Angeles"),
    "open elsewhere": (date(2026, 10, 17), None, "Pacific/Auckland"),
}


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def report(service: Harness, name: str, **query: Any) -> Any:
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def arrivals(world: PathWorld) -> list[Arrival]:
    found: list[Arrival] = []
    for conversion, owner in world.conversions:
        at = conversion.occurred_at
        path = [touch for touch in world.touches.get(owner, []) if at - 90 * DAY <= touch[0] <= at]
        found.append((conversion, tuple(touch[3] for touch in path), (at - path[0][0]) // DAY if path else None))
    return found


def summed(arrivals: Iterable[Arrival], keys: Callable[[Arrival], Iterable[Any]]) -> dict[Any, tuple[int, int]]:
    """Conversions and their value, for each of the keys that an arrival counts under."""
    number: Counter[Any] = Counter()
    value: Counter[Any] = Counter()
    for arrival in arrivals:
        for key in keys(arrival):
            number[key] += 1
            value[key] += arrival[0].value_minor
    return {key: (times, value[key]) for key, times in number.items()}


async def test_reports_equal_plain_recomputation(attribution: Harness) -> None:
    facts = histories(range(600, 606))
    await attribution.deliver(*facts)
    world = PathWorld(facts)
    for first, end, tz in WINDOWS.values():
        window = {name: value for name, value in {"from": first, "to": end, "tz": tz}.items() if value is not None}
        since, until = (datetime.combine(day, time(), ZoneInfo(tz)) if day else None for day in (first, end))
        within = [
            one
            for one in arrivals(world)
            if (since is None or one[0].occurred_at >= since) and (until is None or one[0].occurred_at < until)
        ]
        for currency, types in (("EUR", None), ("EUR", "signup"), ("USD", "signup,purchase"), ("USD", None)):
            chosen = [one for one in within if one[0].currency == currency]
            if types is not None:
                chosen = [one for one in chosen if one[0].type in types.split(",")]
            asked = window | {"currency": currency} | ({"conversion_type": types} if types else {})
            await check_reports(attribution, chosen, asked)
            if (tz == "Asia/Kolkata" and types == "signup") or (since is until is None and types is None):
                await check_drills(attribution, asked)


async def check_drills(service: Harness, asked: dict[str, Any]) -> None:
    """The conversions behind each row of each report are as many, and worth as much, as the row says."""
    for name in ("assisted", "paths", "path-length", "time-lag"):
        rows = (await report(service, name, **asked))["rows"]
        assert rows
        if name == "assisted":
            names = ("assisted_drill_url", "assisted_conversions", "assisted_value_minor")
            await behind(service, {row[names[0]]: (row[names[1]], row[names[2]]) for row in rows})
        else:
            await behind(service, {row["drill_url"]: (row["conversions"], row["value_minor"]) for row in rows})


async def check_reports(service: Harness, chosen: list[Arrival], asked: dict[str, Any]) -> None:
    found = await report(service, "assisted", **asked)
    assert found["conversions"] == len(chosen)
    assert found["value_minor"] == sum(one.value_minor for one, _, _ in chosen)
    assert found["unattributed_conversions"] == sum(1 for _, path, _ in chosen if not path)
    parts: dict[str, Callable[[Arrival], Iterable[Any]]] = {
        "assisted": lambda one: set(one[1][:-1]),
        "last": lambda one: one[1][-1:],
        "first": lambda one: one[1][:1],
    }
    for name, keys in parts.items():
        sums = {row["key"]: (row[f"{name}_conversions"], row[f"{name}_value_minor"]) for row in found["rows"]}
        assert {key: sum_of for key, sum_of in sums.items() if sum_of[0]} == summed(chosen, keys)
    rows = (await report(service, "participation", **asked))["rows"]
    expected = summed(chosen, lambda one: set(one[1]) or {"(unattributed)"})
    assert {row["key"]: (row["conversions"], row["value_minor"]) for row in rows} == expected
    rows = (await report(service, "path-length", **asked))["rows"]
    lengths = summed(chosen, lambda one: [len(one[1])])
    assert [(row["touches"], row["conversions"], row["value_minor"]) for row in rows] == [
        (length, *lengths[length]) for length in sorted(lengths)
    ]
    rows = (await report(service, "time-lag", **asked))["rows"]
    lags = summed(chosen, lambda one: [one[2]])
    assert {row["days"]: (row["conversions"], row["value_minor"]) for row in rows} == lags
    for collapse in (False, True):
        pages = await all_pages(service, "paths", collapse=collapse, limit=7, **asked)
        expected = summed(chosen, lambda one: [without_runs(one[1]) if collapse else one[1]])  # noqa: B023  # used at once
        assert {tuple(row["path"]): (row["conversions"], row["value_minor"]) for row in pages} == expected
        assert len(pages) == len(expected)
        frequency = [(-row["conversions"], -row["value_minor"]) for row in pages]
        assert frequency == sorted(frequency)
        assert sum(row["share"] for row in pages) == pytest.approx(1 if chosen else 0, abs=1e-4)


async def all_pages(service: Harness, name: str, **query: Any) -> list[dict[str, Any]]:
    page = await report(service, name, **query)
    rows: list[dict[str, Any]] = page["rows"]
    while page["next_cursor"]:
        page = await report(service, name, cursor=page["next_cursor"], **query)
        rows += page["rows"]
    return rows


async def behind(service: Harness, links: dict[str, tuple[int, int]]) -> None:
    """Each address lists so many conversions of so much value, all of which count whole; page by page the same."""
    for link, expected in links.items():
        address = link.removeprefix("/attribution")
        items = (await service.client.get(f"{address}&limit=200")).json()["items"]
        pages: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await service.client.get(f"{address}&limit=3" + (f"&cursor={cursor}" if cursor else ""))).json()
            pages, cursor = [*pages, *page["items"]], page["next_cursor"]
        assert pages == items
        assert [one["share"] for one in items] == [1.0] * expected[0]
        assert sum(one["credited_minor"] for one in items) == expected[1]


async def test_a_small_history_by_hand(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 9, channel="Email"),
        teller.touch("nora", 8, channel="Email"),
        teller.touch("nora", 4.5, channel="Direct"),
        teller.conversion("nora", 1, 1_000),
        teller.touch("otto", 3, channel="Email"),
        teller.conversion("otto", 3, 500),
        teller.conversion("paul", 2, 70),
    )
    head = {
        "currency": "EUR",
        "as_of": None,
        "conversions": 3,
        "value_minor": 1_570,
        "unattributed_conversions": 1,
        "unattributed_value_minor": 70,
    }
    found = await report(attribution, "assisted")
    for part in ("assisted", "last", "first"):
        names = (f"{part}_conversions", f"{part}_value_minor")
        links = {row.pop(f"{part}_drill_url"): (row[names[0]], row[names[1]]) for row in found["rows"]}
        await behind(attribution, links)
    assert found == head | {
        "rows": [
            {
                "key": "Email",
                "assisted_conversions": 1,
                "assisted_value_minor": 1_000,
                "last_conversions": 1,
                "last_value_minor": 500,
                "first_conversions": 2,
                "first_value_minor": 1_500,
                "ratio": 1.0,
            },
            {
                "key": "Direct",
                "assisted_conversions": 0,
                "assisted_value_minor": 0,
                "last_conversions": 1,
                "last_value_minor": 1_000,
                "first_conversions": 0,
                "first_value_minor": 0,
                "ratio": 0.0,
            },
        ]
    }
    found = await report(attribution, "paths", collapse=True)
    links = {row.pop("drill_url"): (row["conversions"], row["value_minor"]) for row in found["rows"]}
    await behind(attribution, links)
    assert found == head | {
        "collapsed": True,
        "next_cursor": None,
        "rows": [
            {
                "key": "Email > Direct",
                "path": ["Email", "Direct"],
                "touches": 2,
                "conversions": 1,
                "value_minor": 1_000,
                "share": 0.333333,
            },
            {"key": "Email", "path": ["Email"], "touches": 1, "conversions": 1, "value_minor": 500, "share": 0.333333},
            {
                "key": "(unattributed)",
                "path": [],
                "touches": 0,
                "conversions": 1,
                "value_minor": 70,
                "share": 0.333333,
            },
        ],
    }
    found = await report(attribution, "time-lag")
    assert (found["mean_days"], [row["days"] for row in found["rows"]]) == (4.0, [0, 8, None])
    found = await report(attribution, "path-length")
    assert (found["mean_touches"], [row["touches"] for row in found["rows"]]) == (1.333333, [0, 1, 3])
    found = await report(attribution, "participation")
    assert found["overlapping"] is True
    await behind(attribution, {row["drill_url"]: (row["conversions"], row["value_minor"]) for row in found["rows"]})
    assert [(row["key"], row["conversions"]) for row in found["rows"]] == [
        ("Email", 2),
        ("Direct", 1),
        ("(unattributed)", 1),
    ]


async def test_reports_as_csv(attribution: Harness) -> None:
    teller = Teller()
    facts = [teller.touch("nora", 9, channel="=cmd"), teller.conversion("nora", 1, 1_000)]
    await attribution.deliver(*facts, teller.touch("otto", 9), teller.conversion("otto", 1, 10))
    for name in ("assisted", "participation", "paths", "path-length", "time-lag"):
        answer = await attribution.client.get(f"/v1/reports/{name}", headers={"accept": "text/csv"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        lines = list(csv.DictReader(StringIO(answer.text)))
        assert {line["currency"] for line in lines} == {"EUR"}
        assert len(lines) == (1 if name in ("path-length", "time-lag") else 2)
    answer = await attribution.client.get("/v1/reports/paths", params={"format": "csv", "limit": 1})
    assert answer.text.splitlines()[1].startswith("'=cmd,1,1,1000,0.5,/attribution/v1/")
    following = answer.headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    lines = list(csv.DictReader(StringIO((await attribution.client.get(following)).text)))
    assert [line["key"] for line in lines] == ["Email"]


async def test_what_cannot_be_asked_is_refused(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(teller.conversion("nora", 1, 1), teller.conversion("otto", 1, 1, currency="USD"))

    async def refused(name: str, **query: Any) -> tuple[int, str, list[str]]:
        answer = await attribution.client.get(f"/v1/reports/{name}", params=query)
        body = answer.json()
        return answer.status_code, body["type"], [error["pointer"] for error in body.get("errors", [])]

    for name in ("assisted", "participation", "paths", "path-length", "time-lag"):
        status, kind, pointers = await refused(name)
        assert (status, pointers) == (422, ["query:currency"])
        assert kind.endswith("attribution:several-currencies")
        assert (await refused(name, tz="Mars/Olympus"))[2] == ["query:tz"]
        assert (await refused(name, **{"from": TODAY, "to": TODAY}))[2] == ["query:to"]
        assert (await refused(name, currency="EURO"))[2] == ["query:currency"]
    assert (await refused("paths", currency="EUR", limit=0))[2] == ["query:limit"]
    for query in ({"touches": -1}, {"days": 2**40}, {"sequence_id": 2**63}, {"assisted_by": "\x00"}):
        assert (await refused("paths/conversions", **query))[2] == [f"query:{next(iter(query))}"]
    assert (await refused("paths", currency="EUR", cursor="x"))[0] in (400, 422)
    assert (await report(attribution, "paths", currency="JPY"))["rows"] == []


async def test_a_cursor_is_for_the_same_question_only(attribution: Harness) -> None:
    teller = Teller()
    for who, channel in (("nora", "Email"), ("otto", "Direct")):
        await attribution.deliver(teller.touch(who, 3, channel=channel), teller.conversion(who, 1, 100))
    page = await report(attribution, "paths", limit=1)
    again = await attribution.client.get(
        "/v1/reports/paths", params={"limit": 1, "cursor": page["next_cursor"], "collapse": True}
    )
    assert again.status_code in (400, 422)


async def test_nothing_at_all_is_an_empty_answer(attribution: Harness) -> None:
    found = await report(attribution, "time-lag")
    assert (found["currency"], found["conversions"], found["mean_days"], found["rows"]) == (None, 0, None, [])
