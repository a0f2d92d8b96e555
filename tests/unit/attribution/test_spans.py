"""Whole months, days beside them and moments at the ends cover a period, each moment of it once."""

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from services.attribution.paths.domain import Span, reach_of
from services.attribution.pipeline.spans import midnight, pieces, spans
from services.attribution.reports.domain import Interval, Period

ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu")
MOMENTS = st.datetimes(datetime(2019, 1, 1), datetime(2022, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
DAYS = st.dates(date(2019, 1, 1), date(2022, 1, 1))


def covering(at: datetime, start: datetime | None, end: datetime | None) -> int:
    """How often a moment is read."""
    found = spans(start, end)
    day = at.date()
    return (
        sum(first <= day.replace(day=1) < until for first, until in found.months)
        + sum(first <= day < until for first, until in found.days)
        + sum(first <= at < until for first, until in found.moments)
    )


@given(st.none() | MOMENTS, st.none() | MOMENTS, MOMENTS)
def test_each_moment_of_a_period_is_read_once_and_no_other(
    start: datetime | None, end: datetime | None, at: datetime
) -> None:
    if start is not None and end is not None and start > end:
        start, end = end, start
    inside = (start is None or start <= at) and (end is None or at < end)
    assert covering(at, start, end) == inside
    for bound in (start, end):
        if bound is not None:
            assert covering(bound, start, end) == (bound != end)


def test_a_year_is_read_from_twelve_months_and_the_days_at_its_ends() -> None:
    found = spans(datetime(2025, 3, 30, 22, tzinfo=UTC), datetime(2026, 4, 2, tzinfo=UTC))
    assert found.months == ((date(2025, 4, 1), date(2026, 4, 1)),)
    assert found.days == ((date(2025, 3, 31), date(2025, 4, 1)), (date(2026, 4, 1), date(2026, 4, 2)))
    assert found.moments == ((datetime(2025, 3, 30, 22, tzinfo=UTC), datetime(2025, 3, 31, tzinfo=UTC)),)


@given(DAYS, st.integers(1, 120), DAYS, st.integers(-40, 40))
def test_sums_of_months_and_days_count_each_day_of_a_period_once(
    first: date, days: int, any_day: date, off: int
) -> None:
    end = first + timedelta(days=days)
    found = reach_of(Period(first, end, ZoneInfo("UTC")), by_type=False).spans
    for day in (any_day, first + timedelta(days=off), end + timedelta(days=off)):
        named = {"day": day, "month": day.replace(day=1)}
        times = sum(span.sign for span in found if span.first <= named[span.level] < span.end)
        assert times == (first <= day < end)
    assert all((span.end - span.first).days <= 16 for span in found if span.level == "day")


def test_most_of_a_month_is_all_of_it_without_the_rest() -> None:
    found = reach_of(Period(date(2026, 1, 2), date(2026, 4, 3), ZoneInfo("UTC")), by_type=False)
    assert found.spans == (
        Span("month", date(2026, 1, 1), date(2026, 2, 1)),
        Span("day", date(2026, 1, 1), date(2026, 1, 2), -1),
        Span("month", date(2026, 2, 1), date(2026, 4, 1)),
        Span("day", date(2026, 4, 1), date(2026, 4, 3)),
    )


@given(DAYS, st.integers(1, 120), st.sampled_from(ZONES), st.sampled_from(["day", "week", "month"]))
def test_the_pieces_of_a_period_meet_and_cover_it(first: date, days: int, zone: str, interval: Interval) -> None:
    period = Period(first, first + timedelta(days=days), ZoneInfo(zone))
    cut = [piece for _, piece in pieces(period, interval)]
    assert cut[0].first == period.first
    assert cut[-1].end == period.end
    assert all(one.end == other.first for one, other in itertools.pairwise(cut))
    assert all(one.moments[1] == other.moments[0] for one, other in itertools.pairwise(cut))


def test_weeks_begin_on_mondays_and_are_named_by_these_also_where_the_period_begins_later() -> None:
    cut = pieces(Period(date(2026, 11, 1), date(2026, 11, 12), ZoneInfo("UTC")), "week")
    assert [label for label, _ in cut] == [date(2026, 10, 26), date(2026, 11, 2), date(2026, 11, 9)]
    months = pieces(Period(date(2026, 11, 30), date(2026, 12, 12), ZoneInfo("UTC")), "month")
    assert [label for label, _ in months] == [date(2026, 11, 1), date(2026, 12, 1)]


def test_a_day_begins_at_midnight_where_it_is() -> None:
    assert midnight(date(2026, 1, 1), ZoneInfo("Asia/Kathmandu")).astimezone(UTC).hour == 18
