"""Every report of credits equals the plain recomputation, however it is read, and so does what lies behind."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest_asyncio

from services.attribution.credits.domain import Credited
from services.attribution.domain import NOBODY, SHARE_UNITS, CreditingRun
from services.attribution.models.catalogue import Catalogue
from services.attribution.reports.domain import Interval, bucket_of
from services.attribution.reports.questions import DIMENSIONS, PERSON_FIELDS, VOCABULARY
from shared.ids import ConversionId
from shared.rules import compile_expression
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import NOW, World
from tests.service.attribution_random import random_history
from throughline.services import service_code

TODAY = NOW.date()
TOUCH_FILTERS = [
    "channel != 'Direct'",
    "channel.startsWith('(')",
    "source in ['google', 'news'] && touch_type == 'page_view'",
    "landing_page.contains('pricing') || content == 'banner'",
    "conversion_type == 'signup' && channel == 'Email'",
    "currency == 'EUR' && !(medium == '(not set)')",
]
PERSON_FILTERS = ["country == 'DE'", "rep != '(not set)' && conversion_type == 'purchase'", "account.endsWith('acme')"]
OTHER_FILTERS = ["value_minor >= 100", "country == 'FR' || channel == 'Email'", "value_minor < 9999 && rep == 'rosa'"]

Cells = dict[tuple[date | None, tuple[str, ...]], tuple[int, int]]


@dataclass(frozen=True)
class Asked:
    """A report to ask for, over HTTP and of the recomputation."""

    model: str
    dimensions: tuple[str, ...]
    basis: str
    interval: Interval | None
    zone: str
    first: date | None
    end: date | None
    types: tuple[str, ...]
    filter: str | None
    currency: str

    @property
    def query(self) -> dict[str, Any]:
        given = {
            "model": self.model,
            "dimension": ",".join(self.dimensions),
            "date_basis": self.basis,
            "interval": self.interval,
            "tz": self.zone,
            "from": self.first,
            "to": self.end,
            "conversion_type": ",".join(self.types) or None,
            "filter": self.filter,
            "currency": self.currency,
        }
        return {name: value for name, value in given.items() if value is not None}


def random_question(dice: random.Random) -> Asked:
    first = dice.choice([None, TODAY - timedelta(days=dice.randrange(20, 130))])
    end = dice.choice([None, TODAY - timedelta(days=dice.randrange(-2, 19))])
    return Asked(
        model=dice.choice(["linear", "first_touch", "w_shaped", "time_decay", "engaged"]),
        dimensions=tuple(dice.sample(DIMENSIONS, dice.choice([1, 1, 2]))),
        basis=dice.choice(["conversion", "conversion", "touch"]),
        interval=dice.choice([None, "day", "week", "month"]),
        zone=dice.choice(["UTC", "UTC", "America/New_York", "Asia/Kolkata"]),
        first=first,
        end=end,
        types=dice.choice([(), (), ("purchase",), ("signup", "purchase")]),
        filter=dice.choice([None, None, *TOUCH_FILTERS, *PERSON_FILTERS, *OTHER_FILTERS]),
        currency=dice.choice(["EUR", "USD"]),
    )


def recomputed(asked: Asked, credited: Iterable[Credited], run: int) -> Cells:
    """The cells of a report, one credit after the other."""
    expression = compile_expression(asked.filter, VOCABULARY) if asked.filter else None
    zone = ZoneInfo(asked.zone)
    cells: dict[tuple[date | None, tuple[str, ...]], list[int]] = defaultdict(lambda: [0, 0])
    for one in credited:
        path, division = one.path, one.divisions[run]
        combos = [NOBODY, *(touch.combo for touch in path.touches)]
        times = [path.occurred_at, *(touch.occurred_at for touch in path.touches)]
        for combo, at, units, minor in zip(combos, times, division.units, division.value_minor, strict=True):
            fields = {name: getattr(path if name in PERSON_FIELDS else combo, name) for name in DIMENSIONS}
            day = (path.occurred_at if asked.basis == "conversion" else at).astimezone(zone).date()
            chosen = {
                **fields,
                "conversion_type": path.conversion_type,
                "currency": path.currency,
                "value_minor": path.value_minor,
            }
            if (
                not (units or minor)
                or path.currency != asked.currency
                or (asked.types and path.conversion_type not in asked.types)
                or (asked.first is not None and day < asked.first)
                or (asked.end is not None and day >= asked.end)
                or (expression is not None and not expression.value(chosen))
            ):
                continue
            bucket = bucket_of(day, asked.interval) if asked.interval else None
            cell = cells[bucket, tuple(fields[name] for name in asked.dimensions)]
            cell[0] += units
            cell[1] += minor
    return {place: (units, minor) for place, (units, minor) in cells.items()}


def told(report: Mapping[str, Any]) -> dict[tuple[date | None, tuple[str, ...]], tuple[float, int]]:
    """The cells that a report tells."""
    return {
        (date.fromisoformat(row["period"]) if "period" in row else None, tuple(row.get("keys", [row["key"]]))): (
            row["conversions"],
            row["value_minor"],
        )
        for row in report["rows"]
        if row["cost_minor"] is None or row["conversions"] or row["value_minor"]
    }


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def crediting_runs(service: Harness) -> list[CreditingRun]:
    async with service.runtime.database.transaction() as tx:
        return await Catalogue().crediting(tx.connection)


async def behind(service: Harness, drill_url: str) -> list[dict[str, Any]]:
    """All conversions that an address of a report leads to, page by page."""
    path, _, query = drill_url.removeprefix("/attribution").partition("?")
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await service.client.get(f"{path}?{query}&limit=7{cursor}")
        assert page.status_code == 200, page.text
        items += page.json()["items"]
        if page.json()["next_cursor"] is None:
            return items
        cursor = f"&cursor={page.json()['next_cursor']}"


def assert_in_order(items: Sequence[Mapping[str, Any]]) -> None:
    places = [(-datetime.fromisoformat(item["occurred_at"]).timestamp(), item["conversion_id"]) for item in items]
    assert places == sorted(set(places))


async def test_reports_equal_the_plain_recomputation_and_so_does_what_lies_behind(attribution: Harness) -> None:
    dice = random.Random(11)
    facts = [fact for seed in range(500, 508) for fact in random_history(seed)]
    await attribution.deliver(*facts)
    runs = {run.model.model_id: run for run in await crediting_runs(attribution)}
    credited: dict[ConversionId, Credited] = World(facts).credited(list(runs.values()))
    sources: dict[tuple[str, bool, bool], int] = defaultdict(int)
    for _ in range(160):
        asked = random_question(dice)
        answer = await attribution.client.get("/v1/reports/attribution", params=asked.query)
        assert answer.status_code == 200, answer.text
        report = answer.json()
        expected = recomputed(asked, credited.values(), runs[asked.model].run)
        found = told(report)
        assert {place: minor for place, (_, minor) in found.items()} == {
            place: minor for place, (_, minor) in expected.items()
        }, asked
        assert all(
            abs(conversions - expected[place][0] / SHARE_UNITS) <= 5e-7 for place, (conversions, _) in found.items()
        ), asked
        assert report["total"]["value_minor"] == sum(minor for _, minor in expected.values())
        sources[report["source"], asked.zone == "UTC", bool(expected)] += 1
        for row in dice.sample(report["rows"], min(2, len(report["rows"]))):
            items = await behind(attribution, row["drill_url"])
            assert sum(item["credited_minor"] for item in items) == row["value_minor"], asked
            assert abs(sum(item["share"] for item in items) - row["conversions"]) <= 1e-6, asked
            assert_in_order(items)
    assert min(sources[source, in_utc, True] for source in ("sums", "credits") for in_utc in (True, False)) > 7, sources
