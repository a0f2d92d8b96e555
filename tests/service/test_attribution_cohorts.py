"""Cohorts: who was first heard of when and by what, and what they bought since."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.cohorts.domain import LEVELS, Contact, age_of
from services.attribution.cohorts.queries import stored_contacts
from services.attribution.remainders.handlers import settle
from services.attribution.reports.domain import bucket_of
from shared.events import Event
from shared.ids import ConversionId, LeadId
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import NOW, Teller, World
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


async def told(service: Harness, *facts: Event) -> None:
    await service.deliver(*facts)
    await settle(service.runtime)


async def report(service: Harness, name: str = "cohorts", **query: Any) -> Any:
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stored_tables(service: Harness) -> dict[str, set[tuple[Any, ...]]]:
    tables = ("contacts", "cohort_sizes", "cohort_sums")
    async with service.runtime.database.reading() as connection:
        return {
            table: {_hashable(row.values()) for row in await connection.fetch(f"SELECT * FROM {table}")}
            for table in tables
        }


def _hashable(values: Any) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def recomputed(facts: Sequence[Event]) -> dict[str, set[tuple[Any, ...]]]:
    """The rows of the three tables, from all facts at once."""
    world = World(facts)
    first: dict[LeadId, tuple[Any, ...]] = {}
    for fact in world._touches():
        touch = world._touch(fact)
        person = world.owner(fact.lead_id, fact.occurred_at)
        if not touch.automated:
            first[person] = min(
                (touch.occurred_at, touch.touch_id, touch.origin, touch.channel),
                first.get(person, (datetime.max.replace(tzinfo=NOW.tzinfo),)),
            )
    bought: dict[LeadId, list[tuple[datetime, ConversionId, str, int]]] = defaultdict(list)
    for told_of in world._conversions():
        one = world._conversion(told_of)
        person = world.owner(told_of.lead_id, told_of.occurred_at)
        bought[person].append((one.occurred_at, one.conversion_id, one.currency, one.value_minor))
    contacts: set[tuple[Any, ...]] = set()
    sizes: dict[tuple[Any, ...], int] = defaultdict(int)
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for person in {*first, *bought}:
        theirs = sorted(bought[person])
        at, channel = (first[person][0], first[person][3]) if person in first else (None, "")
        if at is None or (theirs and theirs[0][0] < at):
            at, channel = theirs[0][0], "(unattributed)"
        columns = [tuple(one[index] for one in theirs) for index in (1, 0, 2, 3)]
        contacts.add((person, at, channel, *columns))
        for level in LEVELS:
            cohort = bucket_of(at.date(), level)
            sizes[level, cohort, channel] += 1
            for place, (when, _, currency, minor) in enumerate(theirs):
                cell = sums[level, cohort, channel, currency, age_of(at.date(), when.date(), level)]
                for index, part in enumerate((place == 0, 1, 0 if place else minor, minor)):
                    cell[index] += part
    return {
        "contacts": contacts,
        "cohort_sizes": {(*key, number) for key, number in sizes.items()},
        "cohort_sums": {(*key, *cell) for key, cell in sums.items()},
    }


async def test_cohorts_are_those_of_all_facts_in_any_order(attribution: Harness) -> None:
    dice = random.Random(3)
    facts = [fact for seed in range(700, 712) for fact in random_history(seed)]
    await told(attribution, *facts[: len(facts) // 2])
    rest = facts[len(facts) // 2 :]
    dice.shuffle(rest)
    for begin in range(0, len(rest), 60):
        await told(attribution, *rest[begin : begin + 60], *dice.sample(facts, 5))
    assert await stored_tables(attribution) == recomputed(facts)


async def test_a_cohort_tells_how_many_bought_and_when(attribution: Harness, teller: Teller) -> None:
    july, november = date(2026, 7, 1), date(2026, 11, 1)
    july_days = (TODAY - date(2026, 7, 10)).days
    await told(
        attribution,
        *(teller.touch(who, july_days, channel="Email") for who in ("nora", "otto", "paul", "rosa")),
        teller.touch("nora", july_days - 1, channel="Direct"),
        teller.conversion("nora", july_days - 2, 1_000),
        teller.conversion("nora", july_days - 40, 500),
        teller.conversion("otto", july_days - 45, 300),
        teller.touch("zoe", 3, channel="Direct"),
    )
    found = await report(attribution)
    assert [
        (row["cohort"], row["channel"], row["people"], row["converted"], row["share"]) for row in found["rows"]
    ] == [
        (str(july), "Email", 4, 2, 0.5),
        (str(november), "Direct", 1, 0, 0.0),
    ]
    figures = (
        "age",
        "converted",
        "converted_so_far",
        "share_so_far",
        "conversions",
        "value_minor",
        "value_so_far_minor",
    )
    assert [tuple(age[name] for name in figures) for age in found["rows"][0]["ages"]] == [
        (0, 1, 1, 0.25, 1, 1_000, 1_000),
        (1, 1, 2, 0.5, 2, 800, 1_800),
        (2, 0, 2, 0.5, 0, 0, 1_800),
        (3, 0, 2, 0.5, 0, 0, 1_800),
        (4, 0, 2, 0.5, 0, 0, 1_800),
    ]
    by_weeks = await report(attribution, interval="week", dimension="none", to="2026-08-01")
    (week,) = by_weeks["rows"]
    assert (week["cohort"], week["channel"], week["people"], week["value_minor"]) == ("2026-07-06", None, 4, 1_800)


async def test_new_customers_are_told_from_returning_ones(attribution: Harness, teller: Teller) -> None:
    await told(
        attribution,
        teller.touch("nora", 50, channel="Email"),
        teller.conversion("nora", 40, 1_000),
        teller.conversion("nora", 3, 500),
        teller.conversion("otto", 2, 300),
    )
    rows = (await report(attribution, "new-and-returning"))["rows"]
    assert [
        (row["period"], row["new"]["value_minor"], row["returning"]["value_minor"], row["new_value_share"])
        for row in rows
    ] == [("2026-10-01", 1_000, 0, 1.0), ("2026-11-01", 300, 500, 0.375)]
    by_channel = await report(attribution, "new-and-returning", dimension="channel", **{"from": "2026-11-01"})
    assert [
        (row["channel"], row["new"]["conversions"], row["returning"]["conversions"]) for row in by_channel["rows"]
    ] == [
        ("Email", 0, 1),
        ("(unattributed)", 1, 0),
    ]


async def behind(service: Harness, drill_url: str) -> list[dict[str, Any]]:
    path, _, query = drill_url.removeprefix("/attribution").partition("?")
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await service.client.get(f"{path}?{query}&limit=3{cursor}")
        assert page.status_code == 200, page.text
        items += page.json()["items"]
        if page.json()["next_cursor"] is None:
            return items
        cursor = f"&cursor={page.json()['next_cursor']}"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
async def test_what_is_behind_a_cohort_sums_to_it(attribution: Harness, zone: str) -> None:
    facts = [fact for seed in range(720, 732) for fact in random_history(seed)]
    await told(attribution, *facts)
    for interval in LEVELS:
        query = {"interval": interval, "currency": "EUR", "tz": zone}
        cohorts = await report(attribution, **query)
        for row in cohorts["rows"]:
            items = await behind(attribution, row["drill_url"])
            assert sum(item["value_minor"] for item in items) == row["value_minor"]
            assert len(items) == row["conversions"]
            assert sum(item["first"] for item in items) == row["converted"]
            assert row["value_minor"] == sum(age["value_minor"] for age in row["ages"])
        splits = await report(attribution, "new-and-returning", dimension="channel", **query)
        assert sum(row["value_minor"] for row in cohorts["rows"]) == sum(
            row[part]["value_minor"] for row in splits["rows"] for part in ("new", "returning")
        )
        for row in random.Random(1).sample(splits["rows"], 5):
            for part in ("new", "returning"):
                items = await behind(attribution, row[part]["drill_url"])
                assert sum(item["value_minor"] for item in items) == row[part]["value_minor"]
        assert cohorts["source"] == ("sums" if zone == "UTC" else "people")


async def test_what_is_behind_a_converted_cohort_is_converted(attribution: Harness, teller: Teller) -> None:
    await told(
        attribution,
        teller.touch("nora", 3, channel="Email"),
        teller.conversion("nora", 2, 1_000, currency="USD"),
        teller.conversion("nora", 2, 30),
    )
    rates = [{"date": str(TODAY - timedelta(days=2)), "base": "USD", "quote": "EUR", "rate": "0.5"}]
    assert (await attribution.client.put("/v1/rates", json={"rates": rates})).status_code == 200
    (row,) = (await report(attribution, convert_to="EUR"))["rows"]
    (split,) = (await report(attribution, "new-and-returning", convert_to="EUR"))["rows"]
    both = (await behind(attribution, split["new"]["drill_url"])) + (
        await behind(attribution, split["returning"]["drill_url"])
    )
    for items in (await behind(attribution, row["drill_url"]), both):
        assert sorted(item["converted_minor"] for item in items) == [30, 500]
    assert row["value_minor"] == 530


async def test_people_say_the_same_as_sums(attribution: Harness) -> None:
    await told(attribution, *[fact for seed in range(740, 748) for fact in random_history(seed)])
    for interval in LEVELS:
        by_sums = await report(attribution, interval=interval, currency="USD", **{"from": "2026-07-20"})
        by_people = await report(
            attribution, interval=interval, currency="USD", tz="Africa/Abidjan", **{"from": "2026-07-20"}
        )
        assert by_sums["rows"]
        assert [{**row, "drill_url": ""} for row in by_people["rows"]] == [
            {**row, "drill_url": ""} for row in by_sums["rows"]
        ]


async def test_cohorts_are_converted_by_the_rates_of_the_days(attribution: Harness, teller: Teller) -> None:
    days = {number: str(TODAY - timedelta(days=number)) for number in (2, 20)}
    await told(
        attribution,
        teller.touch("nora", 25, channel="Email"),
        teller.conversion("nora", 20, 1_000, currency="USD"),
        teller.conversion("nora", 2, 1_000, currency="USD"),
        teller.conversion("nora", 2, 7),
    )
    rates = [{"date": days[20], "base": "USD", "quote": "EUR", "rate": "0.5"}]
    assert (await attribution.client.put("/v1/rates", json={"rates": rates})).status_code == 200
    missing = await attribution.client.get("/v1/reports/cohorts", params={"convert_to": "EUR"})
    assert (missing.status_code, missing.json()["type"]) == (422, "urn:throughline:problem:attribution:missing-rates")
    rates = [{"date": days[2], "base": "EUR", "quote": "USD", "rate": "4"}]
    assert (await attribution.client.put("/v1/rates", json={"rates": rates})).status_code == 200
    (row,) = (await report(attribution, convert_to="EUR"))["rows"]
    assert (row["value_minor"], row["converted"]) == (500 + 250 + 7, 1)
    (several,) = [await attribution.client.get("/v1/reports/cohorts")]
    assert (several.status_code, several.json()["errors"][0]["pointer"]) == (422, "query:currency")


async def test_cohorts_come_as_csv(attribution: Harness, teller: Teller) -> None:
    await told(attribution, teller.touch("nora", 5, channel="=1+1"), teller.conversion("nora", 1, 1_000))
    answer = await attribution.client.get("/v1/reports/cohorts", params={"format": "csv"})
    header, line = answer.text.splitlines()
    assert header.startswith("cohort,channel,people,age,converted,converted_so_far,share_so_far,conversions")
    assert line.startswith("2026-11-01,'=1+1,1,0,1,1,1.0,1,1000,1000,EUR,/attribution/v1/reports/cohorts/conversions?")
    splits = await attribution.client.get("/v1/reports/new-and-returning", headers={"accept": "text/csv"})
    assert splits.text.splitlines()[1] == "2026-11-01,,1,1000,0,0,1.0,EUR"


@pytest.mark.parametrize(
    ("path", "query", "pointer"),
    [
        ("cohorts", {"interval": "day"}, "query:interval"),
        ("cohorts", {"dimension": "source"}, "query:dimension"),
        ("cohorts", {"ages": 0}, "query:ages"),
        ("cohorts", {"convert_to": "EUR", "currency": "USD"}, "query:currency"),
        ("cohorts/conversions", {"cohort": "1900-01-01"}, "query:cohort"),
        ("cohorts/conversions", {"channel": "a\x00"}, "query:channel"),
        ("cohorts/conversions", {"first": "maybe"}, "query:first"),
        ("attribution/conversions", {"key": ["a", "b"]}, "query:key"),
        ("attribution/conversions", {"key": "a\x00"}, "query:key"),
    ],
)
async def test_bad_input_is_named(attribution: Harness, path: str, query: dict[str, Any], pointer: str) -> None:
    answer = await attribution.client.get(f"/v1/reports/{path}", params=query)
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [pointer])


async def test_what_a_person_was_counted_as_is_forgotten_when_they_are_somebody_else(
    attribution: Harness, teller: Teller
) -> None:
    await told(
        attribution,
        teller.touch("nora", 50, channel="Email"),
        teller.touch("otto", 40, channel="Direct"),
        teller.conversion("otto", 30, 100),
    )
    await told(attribution, teller.merged("otto", "nora"))
    async with attribution.runtime.database.reading() as connection:
        people = [teller.lead("nora"), teller.lead("otto")]
        (only,) = (await stored_contacts(connection, people)).values()
    assert (only.channel, len(only.bought)) == ("Email", 1)
    assert isinstance(only, Contact)
    await told(attribution, teller.unmerged("otto", "nora"))
    (row, other) = (await report(attribution, dimension="channel"))["rows"]
    assert {(one["channel"], one["people"], one["converted"]) for one in (row, other)} == {
        ("Email", 1, 0),
        ("Direct", 1, 1),
    }
