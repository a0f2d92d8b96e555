"""Working time is what counting it minute by minute gives, on the days when clocks change, whatever is in the way."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.routing.reps.calendar import Calendar
from services.routing.reps.holidays import CompanyDay, UnknownPlace, check_place, holidays_of
from services.routing.reps.spans import Span

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
CHANGES = [
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("America/Santiago", date(2026, 9, 6)),  # midnight is left out
    ("Africa/Cairo", date(2026, 10, 30)),  # midnight comes twice
    ("Australia/Lord_Howe", date(2026, 4, 5)),  # by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Antarctica/Troll", date(2026, 3, 29)),  # by two hours
    ("Pacific/Apia", date(2011, 12, 30)),  # a day that was left out
    ("Asia/Kolkata", date(2026, 7, 1)),
]
Hours = tuple[tuple[int, int], ...]


class ByTheMinute:
    """Working time in the plainest way: for each minute of some days, whether it is worked."""

    def __init__(self, calendar: Calendar, around: date) -> None:
        self.start = datetime.combine(around - 3 * DAY, time(), UTC)
        minutes, clocks = shown(self.start, calendar.zone)
        self.works = [False] * len(minutes)
        assert calendar.hours is not None
        for day in (around + count * DAY for count in range(-5, 6)):
            midnight = datetime.combine(day, time())
            for first, last in calendar.hours[day.weekday()]:
                for index in _between(clocks, midnight + first * MINUTE, midnight + last * MINUTE):
                    self.works[index] = True
        for index, (minute, clock) in enumerate(zip(minutes, clocks, strict=True)):
            gone = any(span.start <= minute < span.end for span in (*calendar.off, *calendar.busy))
            if gone or calendar.holidays.on(clock.date()) is not None:
                self.works[index] = False

    def at(self, moment: datetime) -> bool:
        return self.works[int((moment - self.start) / MINUTE)]

    def after_working(self, at: datetime, minutes: int) -> datetime | None:
        index = int((at - self.start) / MINUTE)
        for place in range(index, len(self.works)):
            minutes -= self.works[place]
            if minutes == 0:
                return self.start + (place + 1) * MINUTE
        return None


@cache
def shown(start: datetime, zone: ZoneInfo) -> tuple[list[datetime], list[datetime]]:
    """The minutes of a week, and what the local clock shows at each."""
    minutes = [start + count * MINUTE for count in range(7 * 1440)]
    return minutes, [minute.astimezone(zone).replace(tzinfo=None) for minute in minutes]


def _between(clocks: list[datetime], opens: datetime, closes: datetime) -> range:
    """From the first minute that shows `opens` or more to the last one that shows less than `closes`."""
    first = next((index for index, clock in enumerate(clocks) if clock >= opens), len(clocks))
    last = next((index for index in range(len(clocks) - 1, -1, -1) if clocks[index] < closes), -1)
    return range(first, last + 1)


def by_quarters(edges: list[int]) -> Hours:
    cuts = [edge * 15 for edge in sorted(edges)]
    return tuple(zip(cuts[::2], cuts[1::2], strict=False))


days = st.one_of(
    st.just(()),
    st.just(((0, 1440),)),
    st.lists(st.integers(0, 96), min_size=2, max_size=6, unique=True).map(by_quarters),
    st.integers(64, 95).map(lambda edge: ((edge * 15, 1440 + 360),)),  # a night, until six
)
gaps = st.lists(st.tuples(st.integers(-3000, 3000), st.integers(1, 1500)), max_size=5)


def without_overlap(hours: tuple[Hours, ...]) -> tuple[Hours, ...]:
    """Nights end where the next day's hours begin."""
    for day, stretches in enumerate(hours):
        after = hours[(day + 1) % 7]
        if stretches and stretches[-1][1] > 1440 and after and after[0][0] < stretches[-1][1] - 1440:
            return tuple(() if place == (day + 1) % 7 else each for place, each in enumerate(hours))
    return hours


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(CHANGES),
    st.lists(days, min_size=7, max_size=7).map(tuple),
    gaps,
    gaps,
    st.lists(st.integers(-2, 2), max_size=2),
    st.integers(-1500, 1500),
    st.integers(1, 1200),
)
def test_working_minutes_are_those_that_counting_finds(  # noqa: PLR0913  # what a calendar is made of
    change: tuple[str, date],
    hours: tuple[Hours, ...],
    leave: list[tuple[int, int]],
    meetings: list[tuple[int, int]],
    free_days: list[int],
    begin: int,
    minutes: int,
) -> None:
    zone_name, around = change
    for _ in range(7):
        hours = without_overlap(hours)
    noon = datetime.combine(around, time(12), UTC)
    off, busy = (
        tuple(Span(noon + start * MINUTE, noon + (start + length) * MINUTE) for start, length in spans)
        for spans in (leave, meetings)
    )
    holidays = holidays_of(None, None, [CompanyDay(around + count * DAY, "free") for count in free_days])
    calendar = Calendar(ZoneInfo(zone_name), hours, off, holidays, busy)
    counted = ByTheMinute(calendar, around)
    at = noon + begin * MINUTE
    for probe in (at + count * 7 * MINUTE for count in range(150)):
        assert calendar.works_at(probe) == counted.at(probe), probe
        assert (calendar.why_not(probe) is None) == counted.at(probe), probe
    assert all(window.start < window.end for window in calendar.windows(at, at + 3 * DAY))
    due = counted.after_working(at, minutes)
    if due is not None:
        assert calendar.after_working(at, minutes) == due


def test_every_minute_of_a_night_over_both_changes() -> None:
    """The fixed case behind the search: nights from ten to six, counted for each minute of the change."""
    for zone_name, around in CHANGES[:4]:
        calendar = Calendar(ZoneInfo(zone_name), (((1320, 1800),),) * 7)
        counted = ByTheMinute(calendar, around)
        start = datetime.combine(around, time(), UTC) - DAY
        assert all(calendar.works_at(start + n * MINUTE) == counted.at(start + n * MINUTE) for n in range(2880))


@pytest.mark.parametrize("change", CHANGES)
def test_hours_that_begin_or_end_where_clocks_change(change: tuple[str, date]) -> None:
    zone, around = ZoneInfo(change[0]), change[1]
    noon = datetime.combine(around, time(12), UTC)
    for edge in (*range(30, 300, 30), 1380):
        for hours in (((0, edge),), ((edge, 1440),)):
            calendar = Calendar(zone, (hours,) * 7)
            counted = ByTheMinute(calendar, around)
            for probe in (noon + count * 15 * MINUTE for count in range(-72, 72)):
                assert calendar.works_at(probe) == counted.at(probe), (hours, probe)


def test_holidays_are_the_local_days_of_the_place_and_the_company_has_the_last_word() -> None:
    own = [
        CompanyDay(date(2026, 12, 24), "Christmas Eve"),
        CompanyDay(date(2026, 1, 6), "no longer", "DE", "BY", worked=True),
        CompanyDay(date(2026, 11, 27), "Day after Thanksgiving", "US"),
    ]
    bavaria, hamburg, nowhere = (
        holidays_of("DE", "BY", own),
        holidays_of("DE", "HH", own),
        holidays_of(None, None, own),
    )
    assert bavaria.on(date(2026, 6, 4)) == "Corpus Christi" and hamburg.on(date(2026, 6, 4)) is None
    assert bavaria.on(date(2026, 1, 6)) is None
    assert {place.on(date(2026, 12, 24)) for place in (bavaria, hamburg, nowhere)} == {"Christmas Eve"}
    assert hamburg.on(date(2026, 11, 27)) is None and holidays_of("US", None, own).on(date(2026, 11, 27))
    always = Calendar(ZoneInfo("Europe/Berlin"), None, holidays=bavaria)
    assert always.next_working(datetime(2026, 12, 24, 9, tzinfo=UTC)) == datetime(2026, 12, 26, 23, tzinfo=UTC)
    assert always.why_not(datetime(2026, 12, 24, 22, 59, tzinfo=UTC)) == "on holiday"


@pytest.mark.parametrize(("country", "part"), [("XX", None), ("DE", "CA"), ("de", None), ("", None)])
def test_a_place_without_known_holidays_is_refused(country: str, part: str | None) -> None:
    with pytest.raises(UnknownPlace):
        check_place(country, part)


def test_leads_of_nights_and_free_days_count_for_the_next_day_that_is_worked() -> None:
    office = Calendar(
        ZoneInfo("Europe/Berlin"),
        (((540, 1020),),) * 5 + ((), ()),
        (Span(datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),),
    )
    friday, monday = datetime(2026, 11, 27, 16, tzinfo=UTC), datetime(2026, 11, 30, 16, tzinfo=UTC)
    assert office.period(friday - MINUTE, "day") == Span(friday - DAY, friday)
    # Monday is off until one in the morning of Tuesday there, so its leads are worked on Tuesday.
    assert office.period(friday, "day") == office.period(monday, "day") == Span(friday, monday + DAY)
    assert office.period(friday - MINUTE, "week") == Span(friday - 7 * DAY, friday)
    assert office.period(friday, "week").start == friday
    assert office.period(friday, "month") == Span(friday, datetime(2026, 12, 31, 16, tzinfo=UTC))
    always = Calendar(ZoneInfo("Asia/Tokyo"))
    assert always.period(friday, "day") == Span(friday - timedelta(hours=1), friday + timedelta(hours=23))


def test_a_calendar_full_of_meetings_is_asked_as_fast_as_an_empty_one() -> None:
    """Not by the clock: the gaps before a moment are passed over by halving, so that few are looked at."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    meetings = tuple(Span(start + n * 30 * MINUTE, start + n * 30 * MINUTE + 10 * MINUTE) for n in range(15_000))
    calendar = Calendar(ZoneInfo("UTC"), None, busy=meetings)
    late = meetings[-1].start
    looked_at = list(zip(range(3), calendar.windows(late), strict=False))
    assert looked_at[0][1].start == meetings[-1].end
    assert calendar.after_working(start, 20) == start + 30 * MINUTE
