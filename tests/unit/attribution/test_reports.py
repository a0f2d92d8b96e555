"""Reports out of sums."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from services.attribution.domain import SHARE_UNITS
from services.attribution.errors import SeveralCurrencies
from services.attribution.reports.domain import Against, Interval, Period, Span, choose_currency, midnight, spans_of
from services.attribution.reports.figures import Cell, Cost, Line, OneCurrency, beside, compared, divided, lines_of
from services.attribution.reports.returns import Daily, paid_back
from shared.errors import Invalid

QUARTER = timedelta(minutes=15)
UTC_ZONE = ZoneInfo("UTC")


def cell(key: str, number: float, minor: int = 0, bucket: date | None = None) -> Cell:
    return Cell("EUR", bucket, None, (key,), round(number * SHARE_UNITS), minor)


def cost(key: str, minor: int, bucket: date | None = None) -> Cost:
    return Cost("EUR", bucket, None, (key,), minor)


def line(key: str, number: float, minor: int = 0) -> Line:
    return Line((None, (key,)), round(number * SHARE_UNITS), minor)


def test_largest_value_comes_first_and_what_only_cost_comes_too() -> None:
    lines, total = lines_of(
        [cell("Email", 1, 500), cell("Direct", 2, 900)], [cost("Email", 200), cost("Display", 300)], OneCurrency()
    )
    assert [(line.key, line.value_minor, line.cost_minor, line.roi) for line in lines] == [
        ("Direct", 900, None, None),
        ("Email", 500, 200, 1.5),
        ("Display", 0, 300, -1.0),
    ]
    assert (total.conversions, total.value_minor, total.cost_minor, total.roi) == (3, 1_400, 500, 1.8)


def test_without_a_cost_there_is_no_return_on_it() -> None:
    (only,), _ = lines_of([cell("Email", 1, 500)], [cost("Email", 0)], OneCurrency())
    assert only.roi is None


def test_undivided_conversions_are_whole_numbers() -> None:
    assert repr(line("Email", 3).conversions) == "3"
    assert line("Email", 0.5).conversions == 0.5


def test_several_currencies_are_listed_unless_one_is_asked_for() -> None:
    with pytest.raises(SeveralCurrencies, match="EUR, JPY, USD"):
        choose_currency(["USD", "EUR", "JPY", "EUR"], None)
    assert choose_currency(["USD", "EUR"], "EUR") == "EUR"
    assert choose_currency(["USD"], None) == "USD"
    assert choose_currency([], None) is None


def test_comparison_has_every_key_of_any_model() -> None:
    assert compared([[line("Email", 1, 100)], [line("Direct", 1, 100)]]) == [
        ((None, ("Email",)), [line("Email", 1, 100), line("Email", 0)]),
        ((None, ("Direct",)), [line("Direct", 0), line("Direct", 1, 100)]),
    ]


def test_days_begin_at_midnight_of_their_zone() -> None:
    berlin = Period(date(2026, 3, 29), date(2026, 3, 30), ZoneInfo("Europe/Berlin"))
    assert berlin.moments == (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))
    assert not berlin.is_utc
    assert Period(date(2026, 3, 29), None, ZoneInfo("UTC")).is_utc
    assert Period(None, None, ZoneInfo("Europe/Berlin")).is_utc


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kiritimati"])
@pytest.mark.parametrize("days", [1, 2, 9])
def test_a_period_is_whole_days_of_utc_and_parts_of_days(zone: str, days: int) -> None:
    first = date(2026, 3, 28)
    period = Period(first, first + timedelta(days=days), ZoneInfo(zone))
    cut = period.cut
    assert cut.first is not None and cut.end is not None
    whole = [(midnight(cut.first), midnight(cut.end))] if cut.first < cut.end else []
    assert len(cut.parts) == (0 if zone == "UTC" else 2)
    covered = sorted([*cut.parts, *whole])
    assert (covered[0][0], covered[-1][1]) == period.moments
    assert all(one[1] == other[0] for one, other in pairwise(covered))


@pytest.mark.parametrize(
    "zone",
    ["UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kathmandu", "Etc/GMT+12", "Etc/GMT-14"],
)
@pytest.mark.parametrize("days", [1, 2, 40])
def test_a_period_is_the_days_of_utc_next_to_it_but_for_half_a_day_at_each_end(zone: str, days: int) -> None:
    first = date(2026, 3, 8)  # when clocks change in New York
    period = Period(first, first + timedelta(days=days), ZoneInfo(zone))
    cut = period.rounded
    assert cut.first is not None
    assert cut.end is not None
    hours: Counter[datetime] = Counter()
    for sign, spans in ((1, [(midnight(cut.first), midnight(cut.end)), *cut.parts]), (-1, cut.over)):
        for begins, ends in spans:
            assert sign == 1 or ends - begins <= timedelta(hours=12)
            hours.update({begins + n * QUARTER: sign for n in range((ends - begins) // QUARTER)})
    since, until = period.moments
    assert since is not None
    assert until is not None
    assert +hours == Counter(since + n * QUARTER for n in range((until - since) // QUARTER))
    assert min(hours.values()) >= 0
    assert sum((until - since for since, until in cut.parts), timedelta()) <= timedelta(days=1)


def test_a_day_that_a_time_zone_left_out_holds_nothing() -> None:
    cut = Period(date(2011, 12, 30), date(2011, 12, 31), ZoneInfo("Pacific/Apia")).cut
    assert cut.spans() == []
    assert all(since == until for since, until in cut.parts)


@pytest.mark.parametrize(
    ("first", "end", "against", "before"),
    [
        ("2026-03-01", "2026-04-01", "previous_period", ("2026-02-01", "2026-03-01")),
        ("2026-01-01", "2026-04-01", "previous_period", ("2025-10-01", "2026-01-01")),
        ("2026-03-01", "2026-03-08", "previous_period", ("2026-02-22", "2026-03-01")),
        ("2024-02-29", "2024-03-31", "previous_year", ("2023-03-01", "2023-03-31")),
        ("2024-02-01", "2024-02-29", "previous_year", ("2023-02-01", "2023-03-01")),
        ("2024-02-29", "2024-03-01", "previous_year", ("2023-03-01", "2023-03-01")),
        ("2026-01-01", "2027-01-01", "previous_year", ("2025-01-01", "2026-01-01")),
    ],
)
def test_periods_are_set_against_the_one_before(
    first: str, end: str, against: Against, before: tuple[str, str]
) -> None:
    period = Period(date.fromisoformat(first), date.fromisoformat(end), UTC_ZONE).before(against)
    assert (str(period.first), str(period.end)) == before


def test_an_open_period_has_none_before_it() -> None:
    with pytest.raises(Invalid):
        Period(date(2026, 1, 1), None, UTC_ZONE).before("previous_period")


@pytest.mark.parametrize(
    ("interval", "then", "now"),
    [("day", "2026-02-02", "2026-03-02"), ("week", "2026-02-02", "2026-03-02"), ("month", "2026-02-01", "2026-03-01")],
)
def test_buckets_are_laid_side_by_side_from_the_beginning_of_both(interval: Interval, then: str, now: str) -> None:
    firsts = date(2026, 3, 1), date(2026, 2, 1)  # both are Sundays
    past = Line((date.fromisoformat(then), ("Email",)), 0, 7)
    assert beside([], [past], interval, *firsts) == [(Line((date.fromisoformat(now), ("Email",))), past)]
    present = Line((date.fromisoformat(now), ("Email",)), 0, 9)
    assert beside([present], [past], interval, *firsts) == [(present, past)]


def test_a_bucket_at_an_end_of_the_period_is_cut_off_there() -> None:
    period = Period(date(2026, 3, 4), date(2026, 3, 10), UTC_ZONE)
    assert period.part(date(2026, 3, 2), "week") == Period(date(2026, 3, 4), date(2026, 3, 9), UTC_ZONE)
    assert period.part(date(2026, 3, 9), "week") == Period(date(2026, 3, 9), date(2026, 3, 10), UTC_ZONE)
    assert Period(None, None, UTC_ZONE).part(date(2026, 12, 1), "month").end == date(2027, 1, 1)


def test_costs_are_paid_back_on_the_first_day_that_covers_them() -> None:
    earned: Daily = {date(2026, 3, 1): 50, date(2026, 3, 5): 149, date(2026, 3, 9): 1}
    spent: Daily = {date(2026, 3, 2): 100, date(2026, 3, 5): 100, date(2026, 3, 10): 500}
    assert paid_back(earned, spent, Fraction(1)) == (date(2026, 3, 9), 7)
    assert paid_back(earned, spent, Fraction(1, 2)) is None
    assert paid_back(earned, {}, Fraction(1)) is None


def test_whole_numbers_are_divided_as_fractions_are() -> None:
    numbers = (-7, -5, -3, -2, -1, 1, 2, 3, 4, 5, 6, 10**13 + 1)
    pairs = [(part, whole) for part in (0, *numbers) for whole in numbers]
    assert [divided(*pair) for pair in pairs] == [round(Fraction(*pair)) for pair in pairs]


@pytest.mark.parametrize(
    ("first", "end", "spans"),
    [
        (None, None, [Span("month", date.min, date.max)]),
        (date(2026, 1, 1), date(2026, 3, 1), [Span("month", date(2026, 1, 1), date(2026, 3, 1))]),
        (date(2026, 1, 2), date(2026, 1, 31), [Span("day", date(2026, 1, 2), date(2026, 1, 31))]),
        (date(2026, 1, 31), date(2026, 2, 2), [Span("day", date(2026, 1, 31), date(2026, 2, 2))]),
        (
            date(2026, 1, 15),
            date(2026, 4, 15),
            [
                Span("day", date(2026, 1, 15), date(2026, 2, 1)),
                Span("month", date(2026, 2, 1), date(2026, 4, 1)),
                Span("day", date(2026, 4, 1), date(2026, 4, 15)),
            ],
        ),
        (
            None,
            date(2026, 4, 2),
            [Span("month", date.min, date(2026, 4, 1)), Span("day", date(2026, 4, 1), date(2026, 4, 2))],
        ),
        (
            date(2026, 12, 31),
            None,
            [Span("day", date(2026, 12, 31), date(2027, 1, 1)), Span("month", date(2027, 1, 1), date.max)],
        ),
    ],
)
def test_period_is_read_as_whole_months_and_the_days_at_its_ends(
    first: date | None, end: date | None, spans: list[Span]
) -> None:
    assert spans_of(first, end) == spans
