"""Markov and Shapley in the reports equal the definitions, solved with fractions from all facts at once."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from services.attribution.domain import Game, TotalsModel
from services.attribution.models.catalogue import Catalogue
from services.attribution.remainders.handlers import settle
from services.attribution.totals import domain as totals
from services.attribution.totals.games import SetCount
from services.attribution.totals.handlers import keep_totals
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import DAY, NOW, Teller
from tests.service.paths_world import PathWorld
from tests.service.test_attribution_histories import histories
from tests.service.test_attribution_path_reports import arrivals
from tests.unit.attribution.test_chains import Journey, exact_effects
from tests.unit.attribution.test_games import expected as shapley_values
from throughline.services import service_code

TODAY = NOW.date()
WINDOWS: tuple[tuple[date | None, date | None, str, str | None], ...] = (
    (None, None, "UTC", None),
    (None, None, "UTC", "purchase"),
    (date(2026, 9, 10), date(2026, 11, 12), "UTC", None),
    (date(2026, 9, 10), date(2026, 11, 12), "Asia/Kolkata", None),
    (date(2026, 10, 3), None, "America/Los_Angeles", "signup,purchase"),
)
GAMES: tuple[Game, ...] = ("subset_rate", "subset_conversions", "observed_set_rate")


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def put_models(service: Harness) -> None:
    """A model for each order and each game, serving."""
    documents: dict[str, dict[str, Any]] = {
        f"markov_{order}": {"base": "markov", "order": order} for order in (2, 3, 4)
    }
    documents |= {game: {"base": "shapley", "game": game} for game in GAMES}
    for name, document in documents.items():
        answer = await service.client.put(f"/v1/models/{name}", json=document)
        assert answer.status_code == 200, answer.text
    for _ in range(3):
        await service.run_timers()


def journeys_in(
    world: PathWorld, currency: str, window: tuple[date | None, date | None, str, str | None]
) -> tuple[list[Journey], int, int]:
    """The journeys that count, and the conversions without a touch and their value."""
    first, end, tz, types = window
    since, until = (datetime.combine(day, time(), ZoneInfo(tz)) if day else None for day in (first, end))

    def within(at: datetime) -> bool:
        return (since is None or at >= since) and (until is None or at < until)

    converted = [
        (path, one.value_minor)
        for one, path, _ in arrivals(world)
        if one.currency == currency and within(one.occurred_at) and (types is None or one.type in types.split(","))
    ]
    found: list[Journey] = [(path, value) for path, value in converted if path]
    found += [(channels, None) for at, channels in world.remainders().values() if within(at)]
    alone = [value for path, value in converted if not path]
    return found, len(alone), sum(alone)


def markov(journeys: Sequence[Journey], order: int) -> dict[str, tuple[float, float]]:
    """Credited conversions and value by channel."""
    counted, valued = exact_effects(list(journeys), order)
    number = sum(1 for _, value in journeys if value is not None)
    worth = sum(value or 0 for _, value in journeys)
    return {
        channel: (
            float(effect * number / (sum(counted.values()) or 1)),
            float(valued[channel] * worth / (sum(valued.values()) or 1)),
        )
        for channel, effect in counted.items()
    }


def shapley(journeys: Sequence[Journey], game: Game) -> dict[str, tuple[float, float]]:
    counts: dict[tuple[str, ...], list[int]] = {}
    for path, value in journeys:
        count = counts.setdefault(tuple(sorted(set(path))), [0, 0, 0])
        count[0] += 1
        count[1] += value is not None
        count[2] += value or 0
    sets = {channels: SetCount(*count) for channels, count in counts.items()}
    number = shapley_values(sets, game, lambda count: count.conversions)
    worth = shapley_values(sets, game, lambda count: count.value_minor)
    return {channel: (float(value), float(worth[channel])) for channel, value in number.items()}


async def report(service: Harness, name: str = "attribution", **query: Any) -> Any:
    query = {name: value for name, value in query.items() if value is not None}
    answer = await service.client.get(f"/v1/reports/{name}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_reports_equal_the_definitions(attribution: Harness) -> None:
    facts = histories(range(700, 704))
    await attribution.deliver(*facts)
    await settle(attribution.consumer_runtime)
    await put_models(attribution)
    world = PathWorld(facts)
    for window in WINDOWS:
        first, end, tz, types = window
        for currency in ("EUR", "USD"):
            journeys, alone, worth_alone = journeys_in(world, currency, window)
            asked: dict[str, Any] = {"from": first, "to": end, "tz": tz, "conversion_type": types, "currency": currency}
            expected = {"markov": markov(journeys, 1), "shapley": shapley(journeys, "subset_rate")}
            expected |= {f"markov_{order}": markov(journeys, order) for order in (2, 3, 4)}
            expected |= {game: shapley(journeys, game) for game in GAMES}
            for model, credits in expected.items():
                rows = (await report(attribution, model=model, **asked))["rows"]
                by_key = {row["key"]: row for row in rows}
                unattributed = by_key.pop("(unattributed)", {"conversions": 0, "value_minor": 0})
                assert (unattributed["conversions"], unattributed["value_minor"]) == (alone, worth_alone)
                assert by_key.keys() == credits.keys()
                for channel, (conversions, value) in credits.items():
                    assert by_key[channel]["conversions"] == pytest.approx(conversions, abs=1e-5)
                    assert abs(by_key[channel]["value_minor"] - value) <= 1
                number = sum(1 for _, value in journeys if value is not None)
                assert sum(row["conversions"] for row in by_key.values()) == pytest.approx(number, abs=1e-4)
                assert sum(row["value_minor"] for row in by_key.values()) == sum(value or 0 for _, value in journeys)


async def test_removal_effects_stand_beside_the_credits(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email"),
        teller.touch("nora", 4, channel="Direct"),
        teller.conversion("nora", 1, 1_000),
        teller.touch("otto", 3, channel="Direct"),
        teller.touch("paul", 3, channel="Email"),
        teller.conversion("quin", 3, 77),
    )
    await settle(attribution.consumer_runtime)
    found = await report(attribution, model="markov")
    # start: 2/3 Email, 1/3 Direct; Email: 1/2 Direct, 1/2 null; Direct: 1/2 conversion. P = 1/3; without Email 1/6
    figures = {row["key"]: (row["conversions"], row["value_minor"], row.get("removal_effect")) for row in found["rows"]}
    assert figures == {
        "Direct": (round(2 / 3, 6), 667, 1.0),
        "Email": (round(1 / 3, 6), 333, pytest.approx(0.5)),
        "(unattributed)": (1, 77, None),
    }
    compared = await report(attribution, "compare", models="markov,shapley,linear")
    by_key = {row["key"]: row for row in compared["rows"]}
    assert by_key["Direct"]["markov"]["value_minor"] == 667
    # v(Direct) = 0, v(Email) = 0, v(both) = 1/3: half to each
    assert by_key["Email"]["shapley"]["value_minor"] == by_key["Email"]["linear"]["value_minor"] == 500
    assert by_key["(unattributed)"]["shapley"]["conversions"] == 1
    returns = await report(attribution, "roi", model="markov")
    assert {row["key"]: row["value_minor"] for row in returns["rows"]} == {
        "Direct": 667,
        "Email": 333,
        "(unattributed)": 77,
    }
    for row in found["rows"]:
        behind = (await attribution.client.get(row["drill_url"].removeprefix("/attribution"))).json()["items"]
        assert len(behind) == 1


async def test_totals_that_are_kept_are_as_new_as_the_sums_until_these_move(attribution: Harness) -> None:
    async def told_until(at: datetime) -> None:
        async with attribution.runtime.database.transaction() as tx:
            await tx.connection.execute("DELETE FROM feed_watermarks")
            await tx.connection.execute("INSERT INTO feed_watermarks VALUES ('touches', 0, 'capture', $1)", at)

    async def as_of() -> datetime:
        return datetime.fromisoformat((await report(attribution, model="markov_3"))["as_of"])

    teller = Teller()
    await attribution.deliver(teller.touch("nora", 5, channel="Email"), teller.conversion("nora", 1, 1_000))
    await settle(attribution.consumer_runtime)
    await told_until(NOW)
    await put_models(attribution)
    assert await as_of() == NOW
    await told_until(NOW + DAY)
    assert await as_of() == NOW + DAY
    await attribution.deliver(teller.touch("otto", 5, channel="Direct"), teller.conversion("otto", 1, 500))
    await settle(attribution.consumer_runtime)
    await told_until(NOW + 2 * DAY)
    assert await as_of() <= NOW + DAY
    await keep_totals(attribution.consumer_runtime.database, Catalogue())
    assert await as_of() == NOW + 2 * DAY


async def test_totals_that_take_long_are_kept_and_renewed(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 5, channel="Email"), teller.touch("nora", 4), teller.conversion("nora", 1, 1_000)
    )
    await settle(attribution.consumer_runtime)
    await put_models(attribution)

    async def kept() -> dict[tuple[str, str], int]:
        async with attribution.runtime.database.reading() as connection:
            rows = await connection.fetch("SELECT model, currency, moves FROM channel_totals")
        return {(row["model"], row["currency"]): row["moves"] for row in rows}

    first = await kept()
    assert first.keys() == {(f"markov/{order}", "EUR") for order in (2, 3, 4)}
    await attribution.deliver(teller.touch("otto", 5, channel="Direct"), teller.conversion("otto", 1, 500))
    before = await report(attribution, model="markov_3")
    assert sum(row["value_minor"] for row in before["rows"]) == 1_000
    await settle(attribution.consumer_runtime)
    await keep_totals(attribution.consumer_runtime.database, Catalogue())
    renewed = await kept()
    assert all(renewed[name] > moves for name, moves in first.items())
    after = await report(attribution, model="markov_3")
    assert sum(row["value_minor"] for row in after["rows"]) == 1_500
    await keep_totals(attribution.consumer_runtime.database, Catalogue())
    assert await kept() == renewed


async def test_what_only_single_credits_could_answer_is_refused(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 2), teller.conversion("nora", 1, 1_000, external_id="order"), teller.touch("otto", 1)
    )
    day = TODAY - timedelta(days=3)

    async def refused(path: str, **query: Any) -> tuple[int, list[str]]:
        answer = await attribution.client.get(path, params=query)
        assert "totals" in answer.text
        return answer.status_code, [error["pointer"] for error in answer.json().get("errors", [])]

    for model in ("markov", "shapley"):
        conversion = teller.conversion_id("order")
        assert await refused(f"/v1/conversions/{conversion}/credits", model=model) == (422, ["query:model"])
        path = "/v1/reports/attribution"
        assert await refused(path, model=model, dimension="source") == (422, ["query:dimension"])
        assert await refused(path, model=model, dimension="channel,campaign") == (422, ["query:dimension"])
        assert await refused(path, model=model, date_basis="touch") == (422, ["query:date_basis"])
        assert await refused(path, model=model, filter='channel == "Email"') == (422, ["query:filter"])
        assert await refused(path, model=model, interval="day") == (422, ["query:interval"])
        assert await refused(path, model=model, convert_to="USD", **{"from": day}) == (422, ["query:convert_to"])
        assert (await refused("/v1/reports/compare", models=f"linear,{model}", dimension="medium"))[0] == 422


async def test_more_channels_than_anybody_tells_apart_are_refused(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        *(teller.touch("nora", 5 + index / 100, channel=f"c{index}") for index in range(totals.MOST_CHANNELS + 1)),
        teller.conversion("nora", 1, 1_000),
    )
    await settle(attribution.consumer_runtime)
    await attribution.run_timers()
    for model in ("markov", "shapley"):
        answer = await attribution.client.get("/v1/reports/attribution", params={"model": model})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query:model")
    assert len((await report(attribution, model="linear"))["rows"]) == totals.MOST_CHANNELS + 1


def test_credits_of_equal_channels_are_rounded_up_by_name() -> None:
    sums = [totals.PathSum("set", ("A", "B", "C"), 1, 0, 100)]
    for game in GAMES:
        found = totals.credits_of(TotalsModel("x", "x", base="shapley", game=game), sums)
        assert [(one.channel, one.value_minor) for one in found] == [("A", 34), ("B", 33), ("C", 33)]
    steps = [totals.PathSum("step", keys, 1, 0, 0) for keys in (("A",), ("A", "B"), ("B", "C"))]
    last = totals.PathSum("last", ("C",), 1, 0, 100)
    found = totals.credits_of(TotalsModel("x", "x", base="markov"), [*steps, last])
    assert [one.value_minor for one in found] == [34, 33, 33]
    assert sum(Fraction(one.units, 10**10) for one in found) == 1
    assert Counter(one.removal_effect for one in found) == {1.0: 3}
